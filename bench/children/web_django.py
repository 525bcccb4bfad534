"""The app of web.py under gunicorn: that of the workload django, whose table stays as it is."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workloads"))

import django_app
from django.core.handlers.wsgi import WSGIHandler
from django.db import connection
from django.http import HttpResponseForbidden, JsonResponse
from django.urls import path
from web_recording import LOCAL, status, switch


def create_view(request):
    answer = django_app.create_view(request)
    django_app.Book.objects.filter(title=request.POST["title"]).delete()
    return answer


def recording(request, on):
    if request.META["REMOTE_ADDR"] != LOCAL:
        return HttpResponseForbidden()
    return JsonResponse(switch(on))


def state(request):
    return JsonResponse(status())


# The workload has its URLs in a list of its own.
django_app.urlpatterns[:] = [
    path("books/<int:page>/", django_app.list_view),
    path("api/<int:author>/", django_app.api_view),
    path("create/", create_view),
    path("bench/recording/<str:on>", recording),
    path("bench/status", state),
]

with connection.schema_editor() as editor:
    editor.create_model(django_app.Author)
    editor.create_model(django_app.Book)
django_app.Author.objects.bulk_create([django_app.Author(name=f"Author {i}") for i in range(50)])
django_app.Book.objects.bulk_create(
    [
        django_app.Book(
            title=f"book number {i}",
            author_id=i % 50 + 1,
            price=(i * 37 % 9973) / 100,
            published=django_app.datetime.date(2000 + i % 20, i % 12 + 1, i % 28 + 1),
        )
        for i in range(1500)
    ]
)
# Without CSRF tokens, as the test client does it.
django_app.settings.MIDDLEWARE = [
    name for name in django_app.settings.MIDDLEWARE if "csrf" not in name
]
application = WSGIHandler()
