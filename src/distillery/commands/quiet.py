"""What diffusers and transformers say of themselves, which is of no use to who types a command."""


def be_quiet() -> None:
    """Silence both but for errors; before other imports, some of which are warned of too."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()
