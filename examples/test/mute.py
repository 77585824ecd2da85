"""A proxy that discards a server's answers: mute.py PORT BYTES SIGN

Forwards everything to 127.0.0.1:PORT and prints the port that it listens on. After a client has sent BYTES over one
connection, answers of the server on all connections are discarded. The first discarded answer on that connection
creates the file SIGN: from then on the server has confirmed messages without the client's knowledge.
"""
import pathlib
import socket
import sys
import threading

port, limit, sign = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
muted = threading.Event()


def serve(client):
    server = socket.create_connection(("127.0.0.1", port))
    sent = 0

    def answers():
        try:
            while data := server.recv(65536):
                if not muted.is_set():
                    client.sendall(data)
                elif sent >= limit:
                    sign.touch()
        except OSError:
            pass
        finally:
            hang_up(client)

    threading.Thread(target=answers, daemon=True).start()
    try:
        while data := client.recv(4096):
            sent += len(data)
            if sent >= limit:
                muted.set()
            server.sendall(data)
    except OSError:
        pass
    finally:
        # If a client was killed, close the connection to the server too.
        hang_up(server)


def hang_up(connection):
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
