"""A Django project in one file, which is its own manage.py."""

import os
import sys

from django.conf import settings
from django.http import HttpResponse
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_app")
if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"], DEBUG=True, ROOT_URLCONF="django_app", SECRET_KEY="slots", WSGI_APPLICATION="django_app.wsgi"
    )


def slot(request):
    return HttpResponse(f"slot {os.environ['MAITRED_SLOT']}\n", content_type="text/plain")


urlpatterns = [path("", slot)]


def __getattr__(name):
    from django.core.asgi import get_asgi_application
    from django.core.wsgi import get_wsgi_application

    makers = {"asgi": get_asgi_application, "wsgi": get_wsgi_application}
    if name not in makers:
        raise AttributeError(name)
    return makers[name]()


if __name__ == "__main__":
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
