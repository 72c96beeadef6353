"""A client of an HTTP/3 server, and the certificate for one.

    http3.py certificate DIR        writes DIR/cert.pem and DIR/key.pem
    http3.py ask PORT COUNT         asks on so many connections; says how many were answered, and by which processes
"""

import asyncio
import datetime
import ipaddress
import ssl
import sys

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived
from aioquic.quic.configuration import QuicConfiguration


class Client(QuicConnectionProtocol):
    def __init__(self, *words, **options):
        super().__init__(*words, **options)
        self.http = H3Connection(self._quic)
        self.answer = asyncio.get_running_loop().create_future()
        self.body = b""

    def quic_event_received(self, event):
        for event in self.http.handle_event(event):
            if isinstance(event, DataReceived):
                self.body += event.data
                if event.stream_ended and not self.answer.done():
                    self.answer.set_result(self.body.decode())

    async def get(self):
        stream = self._quic.get_next_available_stream_id()
        headers = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", b"/")]
        self.http.send_headers(stream, headers, end_stream=True)
        self.transmit()
        return await self.answer


async def ask(port, count):
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3"], verify_mode=ssl.CERT_NONE)
    answers = []
    for _ in range(count):
        async with connect("127.0.0.1", port, configuration=configuration, create_protocol=Client) as client:
            answers.append(await asyncio.wait_for(client.get(), 10))
    print(len(answers), *sorted({answer.rsplit(" ", 1)[1] for answer in answers}))


def certificate(directory):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    today = datetime.datetime.now(datetime.timezone.utc)
    until = today + datetime.timedelta(1)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), today, until)
    made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
    with open(f"{directory}/cert.pem", "wb") as file:
        file.write(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    with open(f"{directory}/key.pem", "wb") as file:
        plain = serialization.NoEncryption()
        file.write(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))


if sys.argv[1] == "certificate":
    certificate(sys.argv[2])
else:
    asyncio.run(ask(int(sys.argv[2]), int(sys.argv[3])))
