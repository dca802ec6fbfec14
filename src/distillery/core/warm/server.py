"""A process that has imported the libraries, and forks a child for each stage that it is given.

In: a listening socket and a front end's process id; on each connection, what `client.follow` sends.
Out: children that run it, and on the connection how they ended. It lives as long as the front end
does, and as its last child; when a client is gone, its child is killed, and when the server is, the
system kills all of them. Nothing of this package is imported but in a child, from where its client
finds it. Before the fork there is one thread, and no GPU is open.

python -P core/warm SOCKET PROCESS    (files of its own: `__main__` says why)
"""

import contextlib
import os
import select
import signal
import socket
import sys

from .child import ENDS, Request, end_after, receive
from .client import is_ours
from .libraries import CAREFUL, LIBRARIES, import_libraries, why_unfit

__computes__ = False  # it starts what computes

_TO_ALL = {signal.SIGINT, signal.SIGSTOP, signal.SIGCONT}  # a terminal sends them to the group
_PATIENCE_S = 5.0  # for a client that was told to go on


class Server:
    """Forks for whoever connects, until a process has ended and all children have.

    `until` is the open file of that process (`os.pidfd_open`). `unfit`: why nobody is taken, which
    is said to everybody.
    """

    def __init__(self, listener: socket.socket, until: int, unfit: str = "") -> None:
        self._listener, self._until, self._unfit = listener, until, unfit
        self._poll = select.poll()
        self._children: dict[int, tuple[int, socket.socket]] = {}  # by the file of the process
        self._clients: dict[int, int] = {}  # the child of a connection, by its file
        self._is_over = False

    def serve(self) -> Request | None:
        """Fork and serve; returns None at the end, and in a child what it is to run."""
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)  # they are meant for stages
        for file in (self._listener.fileno(), self._until):
            self._poll.register(file, select.POLLIN)
        while self._children or not self._is_over:
            (file, _), *_ = self._poll.poll()  # one at a time: numbers of files come again
            if request := self._answer(file):
                return request
        return None

    def _answer(self, file: int) -> Request | None:
        """See to what happened at one file."""
        if file == self._until:
            self._stop_listening()
        elif file in self._children:
            self._report(file)
        elif file in self._clients:
            self._forward(file)
        else:
            return self._accept()
        return None

    def _stop_listening(self) -> None:
        self._is_over = True
        for file in (self._until, self._listener.fileno()):
            self._poll.unregister(file)
        self._listener.close()

    def _accept(self) -> Request | None:
        connection, _ = self._listener.accept()
        connection.settimeout(_PATIENCE_S)
        if (request := self._ask(connection)) and (child := _fork()) == 0:
            connection.close()
            self._forget()
            return request
        if request:
            request.close()
        if request and child:
            self._watch(child, connection)
        else:
            connection.close()
        return None

    def _ask(self, connection: socket.socket) -> Request | None:
        """What a client of this user wants; None if it is gone."""
        if is_ours(connection):
            with contextlib.suppress(OSError):
                connection.sendall(f"{self._unfit}\n".encode())
                return receive(connection)
        return None

    def _watch(self, child: int, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the child was faster
            os.setpgid(child, child)
        self._clients[connection.fileno()] = child
        self._children[file := os.pidfd_open(child)] = (child, connection)
        for watched in (file, connection.fileno()):
            self._poll.register(watched, select.POLLIN)

    def _forward(self, file: int) -> None:
        """Give the client's signals to its child; kill it if the client is gone."""
        child = self._clients[file]
        told = b""
        with contextlib.suppress(OSError):
            told = os.read(file, 100)
        if not told:
            self._poll.unregister(file)
            del self._clients[file]
            os.killpg(child, signal.SIGKILL)
        for number in told:
            (os.killpg if number in _TO_ALL else os.kill)(child, number)

    def _report(self, file: int) -> None:
        """Tell the client how its child has ended."""
        child, connection = self._children.pop(file)
        self._poll.unregister(file)
        os.close(file)
        _, status = os.waitpid(child, 0)
        if self._clients.pop(connection.fileno(), None):
            self._poll.unregister(connection.fileno())
            with contextlib.suppress(OSError):
                connection.sendall(b"%d" % os.waitstatus_to_exitcode(status))
        connection.close()

    def _forget(self) -> None:
        """In a child: nothing of the server stays open."""
        self._listener.close()
        os.close(self._until)
        for file, (_, connection) in self._children.items():
            os.close(file)
            connection.close()


def _fork() -> int | None:
    """Zero in the child; None where the system has no room for another process."""
    with contextlib.suppress(OSError):
        return os.fork()
    return None


def main() -> None:
    """Serve on an inherited socket until a process ends; a child runs its stage."""
    file, process = map(int, sys.argv[1:])
    for other in {*map(int, os.listdir("/proc/self/fd"))} - {0, 1, 2, file}:
        with contextlib.suppress(OSError):
            os.close(other)
    until = os.pidfd_open(process)
    os.environ.update(CAREFUL)
    listener = socket.socket(fileno=file)
    listener.set_inheritable(False)
    import_libraries(LIBRARIES)
    os.chdir("/")
    request = Server(listener, until, why_unfit()).serve()
    if request is not None:
        request.become()
        end_after(request.run_module)
