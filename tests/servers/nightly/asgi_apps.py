"""ASGI applications, one a framework: uvicorn asgi_apps:NAME (a module's attribute is made when it is asked for)."""

import os
import sys


def text():
    return f"slot {os.environ['MAITRED_SLOT']}\n"


async def plain(scope, receive, send):
    """No framework at all."""
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": text().encode()})


async def plain_rsgi(scope, protocol):
    """Granian's own interface."""
    protocol.response_str(200, [("content-type", "text/plain")], text())


def make_fastapi():
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    app = FastAPI()

    @app.get("/", response_class=PlainTextResponse)
    def slot():
        return text()

    return app


def make_starlette():
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    return Starlette(routes=[Route("/", lambda request: PlainTextResponse(text()))])


def make_quart():
    from quart import Quart

    app = Quart("asgi_apps")

    @app.get("/")
    async def slot():
        return text()

    return app


def make_litestar():
    from litestar import Litestar, MediaType, get

    @get("/", media_type=MediaType.TEXT)
    async def slot() -> str:
        return text()

    return Litestar([slot])


def make_falcon():
    import falcon.asgi

    class Slot:
        async def on_get(self, request, response):
            response.text = text()

    app = falcon.asgi.App()
    app.add_route("/", Slot())
    return app


def make_sanic():
    from sanic import Sanic
    from sanic.response import text as answer

    app = Sanic("slots")

    @app.get("/")
    async def slot(request):
        return answer(text())

    return app


def make_blacksheep():
    from blacksheep import Application

    app = Application()

    @app.router.get("/")
    async def slot():
        return text()

    return app


def make_ravyn():
    from ravyn import Gateway, Ravyn, get

    @get("/")
    async def slot() -> str:
        return text()

    return Ravyn(routes=[Gateway(handler=slot)])


def make_muffin():
    import muffin

    app = muffin.Application()

    @app.route("/")
    async def slot(request):
        return text()

    return app


def make_baize():
    from baize.asgi import PlainTextResponse, Router, request_response

    @request_response
    async def slot(request):
        return PlainTextResponse(text())

    return Router(("/", slot))


def make_microdot():
    from microdot.asgi import Microdot

    app = Microdot()

    @app.get("/")
    async def slot(request):
        return text()

    return app


def make_channels():
    """Django behind Channels' router."""
    import django_app
    from channels.routing import ProtocolTypeRouter

    return ProtocolTypeRouter({"http": django_app.asgi})


def make_socketio():
    import socketio

    return socketio.ASGIApp(socketio.AsyncServer(async_mode="asgi"), plain)


def make_strawberry():
    from strawberry.asgi import GraphQL
    import strawberry

    @strawberry.type
    class Query:
        @strawberry.field
        def slot(self) -> str:
            return text()

    return GraphQL(strawberry.Schema(Query))


def make_flask_wrapped():
    """A WSGI application under an ASGI server."""
    import wsgi_servers
    from asgiref.wsgi import WsgiToAsgi

    return WsgiToAsgi(wsgi_servers.app)


def make_connexion():
    from connexion import AsyncApp

    paths = {"/": {"get": {"operationId": "asgi_apps.text", "responses": {"200": {"description": "slot"}}}}}
    app = AsyncApp("asgi_apps")
    app.add_api({"openapi": "3.0.0", "info": {"title": "slots", "version": "1"}, "paths": paths})
    return app


def __getattr__(name):
    if "make_" + name not in globals():
        raise AttributeError(name)
    globals()[name] = globals()["make_" + name]()
    return globals()[name]


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(getattr(sys.modules["__main__"], sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]))
