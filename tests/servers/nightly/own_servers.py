"""Frameworks that bring their own HTTP server: own_servers.py NAME PORT."""

import os
import sys

HOST = "127.0.0.1"


def text():
    return f"slot {os.environ['MAITRED_SLOT']}\n"


def flask(port):
    from flask import Flask

    app = Flask("slots")
    app.add_url_rule("/", view_func=text)
    app.run(HOST, port)


def quart(port):
    from quart import Quart

    app = Quart("slots")

    @app.get("/")
    async def slot():
        return text()

    app.run(HOST, port)


def bottle(port, server="wsgiref"):
    import bottle

    bottle.route("/")(text)
    bottle.run(host=HOST, port=port, server=server, quiet=True)


def webpy(port):
    import web

    class Slot:
        def GET(self):
            return text()

    web.httpserver.runsimple(web.application(("/", Slot)).wsgifunc(), (HOST, port))


def pyramid(port):
    from wsgiref.simple_server import make_server

    from pyramid.config import Configurator
    from pyramid.response import Response

    with Configurator() as config:
        config.add_route("slot", "/")
        config.add_view(lambda request: Response(text()), route_name="slot")
        app = config.make_wsgi_app()
    make_server(HOST, port, app).serve_forever()


def morepath(port):
    import morepath

    class App(morepath.App):
        pass

    @App.path(path="")
    class Root:
        pass

    App.view(model=Root)(lambda self, request: text())
    morepath.run(App(), host=HOST, port=port, ignore_cli=True)


def tornado(port):
    import asyncio

    from tornado.web import Application, RequestHandler

    class Slot(RequestHandler):
        def get(self):
            self.write(text())

    async def serve():
        Application([("/", Slot)]).listen(port, HOST)
        await asyncio.Event().wait()

    asyncio.run(serve())


def aiohttp_app(arguments):
    from aiohttp import web

    async def slot(request):
        return web.Response(text=text())

    app = web.Application()
    app.router.add_get("/", slot)
    return app


def aiohttp(port, **options):
    from aiohttp import web

    web.run_app(aiohttp_app([]), host=HOST, port=port, **options)


def aiohttp_reuse_port(port):
    aiohttp(port, reuse_port=True)


def aiohttp_uvloop(port):
    import uvloop

    aiohttp(port, loop=uvloop.new_event_loop())


def sanic(port):
    from sanic import Sanic
    from sanic.response import text as answer

    app = Sanic("slots")

    @app.get("/")
    async def slot(request):
        return answer(text())

    app.run(HOST, port, single_process=True)


def emmett(port):
    from emmett import App
    from emmett.server import run

    app = App("emmett")
    app.route("/")(text)
    run(app, HOST, port)


def robyn(port):
    from robyn import Robyn

    app = Robyn(__file__)

    @app.get("/")
    async def slot(request):
        return text()

    app.start(host=HOST, port=port)


def microdot(port):
    from microdot import Microdot

    app = Microdot()

    @app.get("/")
    async def slot(request):
        return text()

    app.run(HOST, port)


def klein(port):
    from klein import Klein

    app = Klein()
    app.route("/")(lambda request: text())
    app.run(HOST, port)


def twisted(port):
    from twisted.internet import endpoints, reactor
    from twisted.web.resource import Resource
    from twisted.web.server import Site

    class Slot(Resource):
        isLeaf = True

        def render_GET(self, request):
            return text().encode()

    endpoints.serverFromString(reactor, f"tcp:{port}:interface={HOST}").listen(Site(Slot()))
    reactor.run()


def nicegui(port):
    from nicegui import ui

    ui.label(text())
    ui.run(host=HOST, port=port, show=False, reload=False)


def dash(port):
    from dash import Dash, html

    app = Dash("slots")
    app.layout = html.P(text())
    app.run(host=HOST, port=port)


def gradio(port):
    import gradio

    with gradio.Blocks() as app:
        gradio.Markdown(text())
    app.launch(server_name=HOST, server_port=port)


def panel(port):
    import panel

    panel.serve(lambda: panel.pane.Str(text()), address=HOST, port=port, show=False)


def pywebio(port):
    import pywebio

    pywebio.start_server(lambda: pywebio.output.put_text(text()), host=HOST, port=port)


def remi(port):
    import remi

    class Slot(remi.App):
        def main(self):
            return remi.gui.Label(text())

    remi.start(Slot, address=HOST, port=port, start_browser=False)


def lona(port):
    from lona import App, View
    from lona.html import HTML, P

    app = App(__file__)

    @app.route("/")
    class Slot(View):
        def handle_request(self, request):
            return HTML(P(text()))

    app.run(host=HOST, port=port)


def livereload(port):
    import wsgi_servers
    from livereload import Server

    Server(wsgi_servers.app).serve(host=HOST, port=port)


def flask_socketio(port):
    from flask import Flask
    from flask_socketio import SocketIO

    app = Flask("slots")
    app.add_url_rule("/", view_func=text)
    SocketIO(app).run(app, HOST, port, allow_unsafe_werkzeug=True)


def httpbin(port):
    from httpbin import app

    app.run(HOST, port)


def xmlrpc_documented(port):
    from xmlrpc.server import DocXMLRPCServer

    server = DocXMLRPCServer((HOST, port), logRequests=False)
    server.register_function(text, "slot")
    server.serve_forever()


def http_threads(port):
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    ThreadingHTTPServer((HOST, port), SimpleHTTPRequestHandler).serve_forever()


def prometheus(port):
    from prometheus_client import start_http_server

    server, thread = start_http_server(port, HOST)
    thread.join()


if __name__ == "__main__":
    globals()[sys.argv[1]](int(sys.argv[2]), *sys.argv[3:])
