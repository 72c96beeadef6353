import os

from pyramid.config import Configurator
from pyramid.response import Response


def main(global_config):
    with Configurator() as config:
        config.add_route("slot", "/")
        config.add_view(lambda request: Response(f"slot {os.environ['MAITRED_SLOT']}\n"), route_name="slot")
        return config.make_wsgi_app()
