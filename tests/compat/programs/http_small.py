"""What the small servers beside this file share: a listening socket, and one answer for a connection."""

import socket


def listener(port, host="127.0.0.1"):
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((host, port))
    server.listen(64)
    return server


def path_of(connection):
    words = connection.recv(4096).split()
    return words[1].decode() if len(words) > 1 else ""


def answer(connection, text, read=True):
    if read:
        connection.recv(4096)
    connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + text.encode())
    # A child that was forked meanwhile has a copy.
    connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def serve(server, text):
    while True:
        answer(server.accept()[0], text)
