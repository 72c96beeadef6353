"""Servers of protocols other than HTTP: protocols.py NAME PORT."""

import asyncio
import os
import sys
import threading

HOST = "127.0.0.1"


def greeting():
    return f"slot {os.environ['MAITRED_SLOT']}\n".encode()


def smtp(port):
    from aiosmtpd.controller import Controller
    from aiosmtpd.handlers import Sink

    Controller(Sink(), hostname=HOST, port=port).start()
    threading.Event().wait()


def ftp(port, server="FTPServer"):
    from pyftpdlib import servers
    from pyftpdlib.handlers import FTPHandler

    getattr(servers, server)((HOST, port), FTPHandler).serve_forever()


def websockets(port):
    from websockets.asyncio.server import serve

    async def handle(websocket):
        await websocket.send(greeting().decode())

    async def main():
        async with serve(handle, HOST, port) as server:
            await server.serve_forever()

    asyncio.run(main())


def websockets_threads(port):
    from websockets.sync.server import serve

    with serve(lambda websocket: websocket.send(greeting().decode()), HOST, port) as server:
        server.serve_forever()


def ssh(port):
    import asyncssh

    async def main():
        key = asyncssh.generate_private_key("ssh-ed25519")
        server = await asyncssh.listen(HOST, port, server_host_keys=[key])
        await server.wait_closed()

    asyncio.run(main())


def grpc(port):
    from concurrent import futures

    import grpc

    server = grpc.server(futures.ThreadPoolExecutor())
    server.add_insecure_port(f"{HOST}:{port}")
    server.start()
    server.wait_for_termination()


def dns(port):
    from dnslib.server import BaseResolver, DNSServer

    server = DNSServer(BaseResolver(), address=HOST, port=port, tcp=True)
    server.start()


def modbus(port):
    from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext
    from pymodbus.server import StartTcpServer

    registers = ModbusSequentialDataBlock(1, [17] * 8)
    StartTcpServer(ModbusServerContext(ModbusDeviceContext(hr=registers)), address=(HOST, port))


def rpyc(port):
    import rpyc
    from rpyc.utils.server import ThreadedServer

    ThreadedServer(rpyc.SlaveService, hostname=HOST, port=port).start()


def rpyc_forks(port):
    import rpyc
    from rpyc.utils.server import ForkingServer

    ForkingServer(rpyc.SlaveService, hostname=HOST, port=port).start()


def pyro(port):
    import Pyro5.api

    with Pyro5.api.Daemon(host=HOST, port=port) as daemon:
        daemon.requestLoop()


def zeromq(port):
    """ZeroMQ's raw TCP, for its own protocol begins with a byte that is not ASCII."""
    import zmq

    peers = zmq.Context().socket(zmq.STREAM)
    peers.bind(f"tcp://{HOST}:{port}")
    while True:
        peer, data = peers.recv_multipart()
        if data:
            peers.send_multipart([peer, greeting()])


def thrift(port):
    from thrift.protocol.TJSONProtocol import TJSONProtocolFactory
    from thrift.server.TServer import TThreadedServer
    from thrift.Thrift import TMessageType, TProcessor
    from thrift.transport.TSocket import TServerSocket
    from thrift.transport.TTransport import TBufferedTransportFactory

    class Echo(TProcessor):
        def process(self, source, sink):
            name, _, number = source.readMessageBegin()
            source.readMessageEnd()
            sink.writeMessageBegin(name, TMessageType.REPLY, number)
            sink.writeMessageEnd()
            sink.trans.flush()

    TThreadedServer(Echo(), TServerSocket(HOST, port), TBufferedTransportFactory(), TJSONProtocolFactory()).serve()


def xmlrpc(port):
    from xmlrpc.server import SimpleXMLRPCServer

    server = SimpleXMLRPCServer((HOST, port), logRequests=False)
    server.register_function(lambda: greeting().decode(), "slot")
    server.serve_forever()


def mqtt(port):
    from amqtt.broker import Broker

    async def main():
        broker = Broker({"listeners": {"default": {"type": "tcp", "bind": f"{HOST}:{port}"}}})
        await broker.start()
        await asyncio.Event().wait()

    asyncio.run(main())


def ldap(port):
    from ldaptor.protocols.ldap.ldapserver import LDAPServer
    from twisted.internet import reactor
    from twisted.internet.protocol import ServerFactory

    reactor.listenTCP(port, ServerFactory.forProtocol(LDAPServer), interface=HOST)
    reactor.run()


def irc(port):
    from irc.server import IRCClient, IRCServer

    IRCServer((HOST, port), IRCClient).serve_forever()


def mysql(port):
    from mysql_mimic import MysqlServer

    asyncio.run(MysqlServer(host=HOST, port=port).serve_forever(host=HOST, port=port))


def dicom(port):
    from pynetdicom import AE
    from pynetdicom.sop_class import Verification

    entity = AE()
    entity.add_supported_context(Verification)
    entity.start_server((HOST, port))


def opcua(port):
    from asyncua import Server

    async def main():
        server = Server()
        await server.init()
        server.set_endpoint(f"opc.tcp://{HOST}:{port}/")
        async with server:
            await asyncio.Event().wait()

    asyncio.run(main())


def modbus_threads(port):
    from pyModbusTCP.server import ModbusServer

    ModbusServer(HOST, port).start()


def autobahn(port):
    from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
    from twisted.internet import reactor

    factory = WebSocketServerFactory(f"ws://{HOST}:{port}")
    factory.protocol = WebSocketServerProtocol
    reactor.listenTCP(port, factory, interface=HOST)
    reactor.run()


def websocket_server(port):
    from websocket_server import WebsocketServer

    WebsocketServer(HOST, port).run_forever()


def grpclib(port):
    from grpclib.health.service import Health
    from grpclib.server import Server

    async def main():
        server = Server([Health()])
        await server.start(HOST, port)
        await server.wait_closed()

    asyncio.run(main())


def socks(port):
    import pproxy

    async def main():
        server = await pproxy.Server(f"socks5://{HOST}:{port}").start_server({"rserver": [pproxy.DIRECT]})
        await server.serve_forever()

    asyncio.run(main())


def redis(port):
    from fakeredis import TcpFakeServer

    TcpFakeServer((HOST, port)).serve_forever()


if __name__ == "__main__":
    globals()[sys.argv[1]](int(sys.argv[2]), *sys.argv[3:])
