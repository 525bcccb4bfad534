"""Django app (ORM on in-memory sqlite, templates, forms) driven by its test client.

Many short-lived small objects from realistic, 25-60 frame deep stacks.
"""

import datetime

import django
from common import SCALE, nothing, report
from django.conf import settings

# exactness.py replaces it: moments at which there is something alive to compare
pause = nothing

TEMPLATES = {
    "base.html": "<html><head><title>{% block t %}site{% endblock %}</title></head>"
    "<body>{% block body %}{% endblock %}</body></html>",
    "row.html": '<tr class=\'{% cycle "odd" "even" %}\'><td>{{ b.title|title }}</td>'
    "<td>{{ b.author.name }}</td><td>{{ b.price|floatformat:2 }}</td>"
    "<td>{{ b.published|date:'Y-m-d' }}</td></tr>",
    "list.html": "{% extends 'base.html' %}{% block t %}Books{% endblock %}{% block body %}"
    "<table>{% for b in books %}{% include 'row.html' %}{% empty %}none"
    "{% endfor %}</table>{{ total|default:'0' }}{% endblock %}",
}
LOADERS = [("django.template.loaders.locmem.Loader", TEMPLATES)]

settings.configure(
    DEBUG=False,
    SECRET_KEY="x",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    INSTALLED_APPS=[
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "django.contrib.sessions",
        "django.contrib.messages",
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    LOGGING_CONFIG=None,
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {"loaders": [("django.template.loaders.cached.Loader", LOADERS)]},
        }
    ],
)
django.setup()

from django import forms  # noqa: E402
from django.db import connection, models  # noqa: E402
from django.http import JsonResponse  # noqa: E402
from django.shortcuts import render  # noqa: E402
from django.test import Client  # noqa: E402
from django.urls import path  # noqa: E402


class Author(models.Model):
    name = models.CharField(max_length=80)

    class Meta:
        app_label = "bench"


class Book(models.Model):
    title = models.CharField(max_length=80)
    author = models.ForeignKey(Author, on_delete=models.CASCADE, related_name="books")
    price = models.DecimalField(max_digits=8, decimal_places=2)
    published = models.DateField()

    class Meta:
        app_label = "bench"


class BookForm(forms.Form):
    title = forms.CharField(max_length=80)
    price = forms.DecimalField()
    author = forms.IntegerField()


def list_view(request, page):
    books = Book.objects.select_related("author").order_by("-price", "id")
    books = books[page * 40 : page * 40 + 40]
    return render(request, "list.html", {"books": books, "total": Book.objects.count()})


def api_view(request, author):
    found = Book.objects.filter(author_id=author)
    rows = found.values("id", "title", "price")
    sums = found.aggregate(models.Avg("price"), models.Count("id"))
    return JsonResponse(
        {
            "books": [dict(row, price=str(row["price"])) for row in rows],
            "avg": str(sums["price__avg"]),
            "n": sums["id__count"],
        }
    )


def create_view(request):
    form = BookForm(request.POST)
    if not form.is_valid():
        return JsonResponse({"errors": form.errors}, status=400)
    book = Book.objects.create(
        title=form.cleaned_data["title"],
        price=form.cleaned_data["price"],
        author_id=form.cleaned_data["author"],
        published=datetime.date(2020, 1, 1),
    )
    pause()
    return JsonResponse({"id": book.pk}, status=201)


urlpatterns = [
    path("books/<int:page>/", list_view),
    path("api/<int:author>/", api_view),
    path("create/", create_view),
]


def main():
    with connection.schema_editor() as editor:
        editor.create_model(Author)
        editor.create_model(Book)
    Author.objects.bulk_create([Author(name=f"Author {i}") for i in range(50)])
    Book.objects.bulk_create(
        [
            Book(
                title=f"book number {i}",
                author_id=i % 50 + 1,
                price=(i * 37 % 9973) / 100,
                published=datetime.date(2000 + i % 20, i % 12 + 1, i % 28 + 1),
            )
            for i in range(1500)
        ]
    )
    client = Client()
    total = 0
    for i in range(round(460 * SCALE)):
        total += len(client.get(f"/books/{i % 30}/").content)
        total += len(client.get(f"/api/{i % 50 + 1}/").content)
        form = {"title": f"new {i}", "price": "12.50", "author": i % 50 + 1}
        assert client.post("/create/", form).status_code == 201
    return total


if __name__ == "__main__":
    report(main)
