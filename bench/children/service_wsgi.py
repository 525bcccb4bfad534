"""The Django app of web.py, with a request that leaks: for service.py."""

import web_django
from django.http import HttpResponse
from django.urls import path

LEAKED = []


def leak_view(request):
    LEAKED.append(b"x" * 200_000 + str(len(LEAKED)).encode())
    return HttpResponse("leaked")


web_django.django_app.urlpatterns.append(path("leak/", leak_view))
application = web_django.application
