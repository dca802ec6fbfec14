"""Chromium by its DevTools protocol over a pipe, with the standard library alone."""

import contextlib
import fcntl
import json
import os
import select
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
    "--disable-background-networking", "--disable-dev-shm-usage", "--remote-debugging-pipe",
)  # fmt: skip
_ANSWER_S = 120
_MODIFIERS = {"Alt": 1, "Control": 2, "Meta": 4, "Shift": 8}
# key: (code, Windows' virtual key code, text that it types)
_KEYS = {
    "Tab": ("Tab", 9, ""),
    "Enter": ("Enter", 13, "\r"),
    "Escape": ("Escape", 27, ""),
    " ": ("Space", 32, " "),
    "ArrowLeft": ("ArrowLeft", 37, ""),
    "ArrowUp": ("ArrowUp", 38, ""),
    "ArrowRight": ("ArrowRight", 39, ""),
    "ArrowDown": ("ArrowDown", 40, ""),
    "/": ("Slash", 191, "/"),
    **{letter: (f"Key{letter.upper()}", ord(letter.upper()), letter) for letter in "adhlo"},
}


class Page:
    """One tab. Messages on its console and uncaught errors are kept in `complaints`."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._number, self._session, self._unread = 0, None, b""
        self._events: list[str] = []
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command and its answer; a refusal is an error."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        while (answer := self._receive()).get("id") != self._number:
            pass
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def _receive(self) -> dict[str, Any]:
        """The next message; events are noted on the way."""
        until = time.monotonic() + _ANSWER_S
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._answers], [], [], max(0, until - time.monotonic()))
            assert ready, f"the browser said nothing for {_ANSWER_S} s"
            data = os.read(self._answers, 1 << 20)
            assert data, "the browser is gone"
            self._unread += data
        first, _, self._unread = self._unread.partition(b"\0")
        message = json.loads(first)
        if (event := message.get("method")) is not None:
            self._events.append(event)
            complaints = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
            if event in complaints:
                self.complaints.append(json.dumps(message["params"])[:2000])
        return message

    def show(self, url: str, width_px: int, scheme: str) -> None:
        """Load a page in a window of this width; `scheme` is `dark` or `light`."""
        self.complaints.clear()
        self._events.clear()
        preferred = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=preferred)
        size = {"width": width_px, "height": 2000, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Page.navigate", url=url)
        self.loaded()

    def loaded(self) -> None:
        """Wait for the page that was asked for."""
        while "Page.loadEventFired" not in self._events:
            self._receive()

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        asked = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", **asked)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str, *held: str) -> None:
        """Press and release a key as on a keyboard, wherever the focus is."""
        self._events.clear()
        code, number, text = _KEYS[key]
        common = {"key": key, "code": code, "windowsVirtualKeyCode": number,
                  "modifiers": sum(_MODIFIERS[name] for name in held)}  # fmt: skip
        down = {"type": "keyDown" if text else "rawKeyDown", "text": text}
        self.call("Input.dispatchKeyEvent", **common, **down)
        self.call("Input.dispatchKeyEvent", **common, type="keyUp")


@contextlib.contextmanager
def opened(browser: str, profile: Path) -> Iterator[Page]:
    """A page in a new browser, which ends with the context."""
    commands, answers = os.pipe(), os.pipe()
    # Above 3 and 4, the numbers that the browser reads and writes, so that neither is in the way.
    theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (commands[0], answers[1])]
    log = (os.POSIX_SPAWN_OPEN, 2, f"{profile}.log", os.O_WRONLY | os.O_CREAT, 0o644)
    process = os.posix_spawn(
        browser,
        [browser, *_SWITCHES, f"--user-data-dir={profile}", "about:blank"],
        os.environ,
        file_actions=[log, *((os.POSIX_SPAWN_DUP2, fd, i) for i, fd in enumerate(theirs, 3))],
    )
    for fd in (commands[0], answers[1], *theirs):
        os.close(fd)
    try:
        page = Page(commands[1], answers[0])
        yield page
        page.call("Browser.close")
    finally:
        os.close(commands[1])  # at its end the browser quits, if it has not yet
        os.close(answers[0])
        os.waitpid(process, 0)
