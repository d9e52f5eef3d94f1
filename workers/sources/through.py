"""The program that git and ssh start in place of a connection: it asks the gateway for one, and copies bytes.

It runs by its path in an isolated interpreter, so it imports the standard library only. Arguments: the host and the
port; FARM_GATEWAY has the gateway's port and credential. core.gitProxy and ssh's ProxyCommand start it.
"""

import os
import socket
import struct
import sys
import threading

_CHUNK_BYTES = 2**16


def _exactly(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        piece = connection.recv(count - len(found))
        if not piece:
            raise OSError("the gateway broke off")
        found += piece
    return found


def _open(host: str, port: int) -> socket.socket:
    where, _, credential = os.environ["FARM_GATEWAY"].partition(":")  # noqa: TID251 - a program of its own
    connection = socket.create_connection(("127.0.0.1", int(where)))
    secret, name = credential.encode(), host.encode()
    connection.sendall(b"\x05\x01\x02" + b"\x01\x04farm" + bytes([len(secret)]) + secret)
    if _exactly(connection, 4) != b"\x05\x02\x01\x00":
        raise OSError("the gateway refuses the credential")
    connection.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + struct.pack(">H", port))
    answer = _exactly(connection, 10)
    if answer[1] != 0:
        raise OSError("not allowed" if answer[1] == 2 else "no connection")
    return connection


def _send(connection: socket.socket) -> None:
    while data := os.read(0, _CHUNK_BYTES):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def main() -> int:
    host, port = sys.argv[1].strip("[]"), int(sys.argv[2])
    try:
        connection = _open(host, port)
    except OSError as error:
        os.write(2, f"error: {host} port {port}: {error}\n".encode())
        return 1
    threading.Thread(target=_send, args=(connection,), daemon=True).start()
    while data := connection.recv(_CHUNK_BYTES):
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]
    return 0


if __name__ == "__main__":
    sys.exit(main())
