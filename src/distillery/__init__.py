"""Distil Stable Diffusion and its ControlNets into smaller students, and measure the gain.

Importing this package makes PEFT know the Kronecker adapter; it imports neither torch nor PEFT.
"""

from distillery.core.interrupts import end_at_once_while_importing as _handle_signals
from distillery.models.kronecker_autoload import install as _register_kronecker

__version__ = "0.1.0"

_register_kronecker()
_handle_signals()
