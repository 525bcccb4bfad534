"""The FastAPI app of web.py, with a request that leaks: for service.py."""

from web_fastapi import app

LEAKED = []


@app.get("/leak/")
async def leak_view() -> str:
    LEAKED.append(b"x" * 200_000 + str(len(LEAKED)).encode())
    return "leaked"


__all__ = ["app"]
