"""One WSGI application under many servers: wsgi_servers.py SERVER PORT; those with a command take wsgi_servers:app."""

import os
import sys

HOST = "127.0.0.1"


def app(environ, start_response):
    body = f"slot {os.environ['MAITRED_SLOT']}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def wsgiref(port):
    from wsgiref.simple_server import make_server

    make_server(HOST, port, app).serve_forever()


def waitress(port):
    import waitress

    waitress.serve(app, host=HOST, port=port)


def cheroot(port):
    from cheroot import wsgi

    wsgi.Server((HOST, port), app).start()


def gevent(port):
    from gevent.pywsgi import WSGIServer

    WSGIServer((HOST, port), app).serve_forever()


def gevent_socketed(port):
    """A listener made first and handed to the server, as gevent's manual shows."""
    from gevent import socket
    from gevent.pywsgi import WSGIServer

    listener = socket.socket()
    listener.bind((HOST, port))
    listener.listen()
    WSGIServer(listener, app).serve_forever()


def eventlet(port):
    import eventlet
    from eventlet import wsgi

    wsgi.server(eventlet.listen((HOST, port)), app)


def werkzeug(port):
    from werkzeug.serving import run_simple

    run_simple(HOST, port, app)


def werkzeug_threaded(port):
    from werkzeug.serving import run_simple

    run_simple(HOST, port, app, threaded=True)


def werkzeug_processes(port):
    from werkzeug.serving import run_simple

    run_simple(HOST, port, app, processes=3)


def twisted(port):
    from twisted.internet import reactor
    from twisted.web.server import Site
    from twisted.web.wsgi import WSGIResource

    reactor.listenTCP(port, Site(WSGIResource(reactor, reactor.getThreadPool(), app)), interface=HOST)
    reactor.run()


def tornado(port):
    from tornado.httpserver import HTTPServer
    from tornado.ioloop import IOLoop
    from tornado.wsgi import WSGIContainer

    HTTPServer(WSGIContainer(app)).listen(port, HOST)
    IOLoop.current().start()


def tornado_forks(port):
    """Tornado's own pre-forking: two children accept on the parent's socket."""
    import asyncio

    from tornado.httpserver import HTTPServer
    from tornado.netutil import bind_sockets
    from tornado.process import fork_processes
    from tornado.wsgi import WSGIContainer

    sockets = bind_sockets(port, HOST)
    fork_processes(2)

    async def serve():
        HTTPServer(WSGIContainer(app)).add_sockets(sockets)
        await asyncio.Event().wait()

    asyncio.run(serve())


def paste(port):
    from paste.httpserver import serve

    serve(app, host=HOST, port=str(port))


def cherrypy_tree(port):
    import cherrypy

    cherrypy.tree.graft(app, "/")
    cherrypy.config.update({"server.socket_host": HOST, "server.socket_port": port})
    cherrypy.engine.start()
    cherrypy.engine.block()


def aiohttp_wsgi(port):
    from aiohttp_wsgi import serve

    serve(app, host=HOST, port=port)


def flup_scgi(port):
    from flup.server.scgi import WSGIServer

    WSGIServer(app, bindAddress=(HOST, port)).run()


def flup_fcgi(port):
    from flup.server.fcgi import WSGIServer

    WSGIServer(app, bindAddress=(HOST, port)).run()


def flup_prefork(port):
    from flup.server.fcgi_fork import WSGIServer

    WSGIServer(app, bindAddress=(HOST, port), minSpare=1, maxSpare=3).run()


if __name__ == "__main__":
    globals()[sys.argv[1]](int(sys.argv[2]))
