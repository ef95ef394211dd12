"""The page for people at `/`: files as they are, nothing from another host, and nothing that a browser may run else."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from fastapi import FastAPI, Request
from fastapi.responses import Response

from mptune.files import digest
from mptune.serving.door import PAGE, Refused

FIRST = "index.html"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# What a task's name or a text says can start nothing: no script, style, picture or request but the page's own.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "private, no-cache",  # kept, and asked for anew: modules of two versions never meet
}


@dataclass(frozen=True)
class PageFile:
    """A file of the page, and the hash by which a browser knows that it has it already."""

    content: bytes
    kind: str
    tag: str


def page_files() -> Mapping[str, PageFile]:
    """Return the files of the page by name."""
    found = {}
    for file in (files("mptune") / "serving" / "page").iterdir():
        ending = file.name[file.name.rfind(".") :]
        if ending in MEDIA_TYPES:
            content = file.read_bytes()
            found[file.name] = PageFile(content, MEDIA_TYPES[ending], f'"{digest(content)}"')
    return found


def add_page(app: FastAPI) -> None:
    """Serve the page: `/`, and its files below `PAGE`, and no other file."""
    known = page_files()

    def answer(request: Request, name: str) -> Response:
        file = known.get(name)
        if file is None:
            raise Refused(404, f"the page has no file {name!r:.80}")
        headers = {**HEADERS, "ETag": file.tag}
        if request.headers.get("if-none-match") == file.tag:
            return Response(status_code=304, headers=headers)
        return Response(file.content, media_type=file.kind, headers=headers)

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        """The page."""
        return answer(request, FIRST)

    @app.get(PAGE + "{name}", include_in_schema=False)
    async def page_file(name: str, request: Request) -> Response:
        """A file of it."""
        return answer(request, name)
