"""The app of web.py under uvicorn: models, validation, dependencies, responses of some KB."""

import datetime
from collections import defaultdict
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request
from pydantic import BaseModel, Field
from web_recording import LOCAL, status, switch


class Author(BaseModel):
    id: int
    name: str


class Book(BaseModel):
    id: int
    title: str = Field(max_length=80)
    author: Author
    price: float = Field(gt=0)
    published: datetime.date
    tags: list[str] = []


class NewBook(BaseModel):
    title: str = Field(max_length=80)
    author: int
    price: float = Field(gt=0)
    tags: list[str] = []


AUTHORS = {i: {"id": i, "name": f"Author {i}"} for i in range(1, 51)}
BOOKS = [
    {
        "id": i,
        "title": f"book number {i}",
        "author": AUTHORS[i % 50 + 1],
        "price": (i * 37 % 9973 + 1) / 100,
        "published": f"{2000 + i % 20}-{i % 12 + 1:02}-{i % 28 + 1:02}",
        "tags": [f"t{i % 7}", f"t{i % 11}"],
    }
    for i in range(1500)
]
app = FastAPI()


def page_of(page: int, size: Annotated[int, Query(ge=1, le=100)] = 40) -> tuple[int, int]:
    return page * size, page * size + size


@app.get("/books/{page}")
async def books(at: Annotated[tuple[int, int], Depends(page_of)]) -> list[Book]:
    found = sorted(BOOKS, key=lambda book: (-book["price"], book["id"]))
    return [Book.model_validate(book) for book in found[at[0] : at[1]]]


@app.get("/api/{author}")
async def by_author(author: int) -> dict[str, Any]:
    if author not in AUTHORS:
        raise HTTPException(404)
    found = [book for book in BOOKS if book["author"]["id"] == author]
    years = defaultdict(list)
    for book in found:
        years[book["published"][:4]].append({"id": book["id"], "title": book["title"].title()})
    return {"books": years, "n": len(found), "avg": sum(b["price"] for b in found) / len(found)}


@app.post("/create/", status_code=201)
async def create(book: NewBook) -> Book:
    return Book(
        id=len(BOOKS),
        title=book.title,
        author=Author(**AUTHORS[book.author]),
        price=book.price,
        published=datetime.date(2020, 1, 1),
        tags=book.tags,
    )


@app.get("/bench/recording/{on}")
async def recording(on: str, request: Request) -> dict[str, int]:
    if request.client is None or request.client.host != LOCAL:
        raise HTTPException(403)
    return switch(on)


@app.get("/bench/status")
async def state() -> dict[str, int]:
    return status()
