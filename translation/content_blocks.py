"""Content blocks of a user turn, and of tool results, as parts of an OpenAI message.

A part is text (a plain str) or an object (`image_url`, `file`). Nothing is fetched: an address is handed to
backends that fetch themselves, for others the request is refused with the name of the block. What has no
equivalent is either refused or noted as a loss, never dropped without a word.
"""

from __future__ import annotations

from collections.abc import Callable

from .anthropic_request import Block, block_kind
from .backend_traits import BackendTraits
from .errors import TranslationError
from .facts import Feature, Loss
from .json_text import Json

Part = str | dict[str, Json]

_FETCHED_SCHEMES = ("http://", "https://", "data:image/")
MOST_LOSSES = 256
"""Different things that are noted as lost; the warning header has no room for more."""


class BlockReader:
    """Turns blocks into parts for one backend, and keeps the list of what got lost."""

    def __init__(self, traits: BackendTraits) -> None:
        self.traits = traits
        self._lost: dict[tuple[Feature, str], Loss] = {}
        self._readers: dict[str, Callable[[Block, str], list[Part]]] = {
            "text": self._read_text,
            "image": self._read_image,
            "document": self._read_document,
            "search_result": self._read_search_result,
        }

    @property
    def losses(self) -> tuple[Loss, ...]:
        """What the backend will not see."""
        return tuple(self._lost.values())

    def lose(self, feature: Feature, name: str) -> None:
        """Note that the backend will not see something; the same thing once."""
        if (feature, name) not in self._lost and len(self._lost) < MOST_LOSSES:
            self._lost[feature, name] = Loss(feature, name)

    def knows(self, block: Block) -> bool:
        """Whether a block is of a type that has an equivalent."""
        return block_kind(block) in self._readers

    def read(self, block: Block, path: str) -> list[Part]:
        """The parts of one block; an unknown type gives its text, or nothing and a loss."""
        kind = block.get("type")
        reader = self._readers.get(kind) if isinstance(kind, str) else None
        if reader is not None:
            return reader(block, path)
        text = block.get("text")
        if isinstance(text, str):
            return [text] if text else []
        self.lose(Feature.BLOCK, kind if isinstance(kind, str) else path)
        return []

    def _read_text(self, block: Block, path: str) -> list[Part]:
        text = read_string(block, "text", path)
        return [text] if text else []

    def _read_image(self, block: Block, path: str) -> list[Part]:
        source = read_source(block, path)
        if not self.traits.vision:
            raise TranslationError("the chosen model does not read images", path=path)
        kind = source.get("type")
        if kind == "base64":
            url = _build_data_url(source, path)
        elif kind == "url":
            url = self._read_image_url(source, path)
        else:
            raise TranslationError(f"images with a source of type {kind!r} are not supported here", path=path)
        return [{"type": "image_url", "image_url": {"url": url}}]

    def _read_image_url(self, source: Block, path: str) -> str:
        url = read_string(source, "url", f"{path}.source")
        if not url.lower().startswith(_FETCHED_SCHEMES):
            raise TranslationError("only http and https addresses of images are passed on", path=path)
        if not self.traits.image_urls and not url.lower().startswith("data:"):
            raise TranslationError(
                "the chosen backend does not fetch images from an address; send the image as base64", path=path
            )
        return url

    def _read_document(self, block: Block, path: str) -> list[Part]:
        source = read_source(block, path)
        if _cites(block):
            self.lose(Feature.CITATIONS, "citations")
        head = _build_heading(block)
        kind = source.get("type")
        if kind == "text":
            return [_join_lines(head, read_string(source, "data", f"{path}.source"))]
        if kind == "content":
            return self._read_document_content(source.get("content"), head, path)
        if kind == "base64" and source.get("media_type", "application/pdf") == "application/pdf":
            return self._read_pdf(block, source, path)
        raise TranslationError(
            f"documents with a source of type {kind!r} are not supported here; send the text", path=path
        )

    def _read_document_content(self, content: Json, head: str, path: str) -> list[Part]:
        where = f"{path}.source.content"
        if isinstance(content, str):
            return [_join_lines(head, content)]
        if not isinstance(content, list):
            raise TranslationError("must be a string or a list of blocks", path=where)
        parts: list[Part] = [head] if head else []
        for index, child in enumerate(content):
            place = f"{where}[{index}]"
            if not isinstance(child, dict) or block_kind(child) not in {"text", "image"}:
                raise TranslationError("must be a text or image block", path=place)
            parts += self.read(child, place)
        return parts

    def _read_pdf(self, block: Block, source: Block, path: str) -> list[Part]:
        if not self.traits.pdf_files:
            raise TranslationError("the chosen backend does not read PDF documents; send the text", path=path)
        data = read_string(source, "data", f"{path}.source")
        title = block.get("title")
        name = title if isinstance(title, str) and title else "document.pdf"
        file = {"filename": name, "file_data": f"data:application/pdf;base64,{data}"}
        context = block.get("context")
        parts: list[Part] = [context] if isinstance(context, str) and context else []
        return [*parts, {"type": "file", "file": file}]

    def _read_search_result(self, block: Block, path: str) -> list[Part]:
        if _cites(block):
            self.lose(Feature.CITATIONS, "citations")
        content = block.get("content")
        if not isinstance(content, list):
            raise TranslationError("must be a list of text blocks", path=f"{path}.content")
        texts = [_read_child_text(child, f"{path}.content[{index}]") for index, child in enumerate(content)]
        title, source = block.get("title"), block.get("source")
        head = [f"Search result: {title}"] if isinstance(title, str) else ["Search result"]
        if isinstance(source, str):
            head.append(f"Source: {source}")
        return ["\n".join([*head, "", *texts])]


def read_string(block: Block, name: str, path: str) -> str:
    """A field that must be a string; raises TranslationError naming it."""
    value = block.get(name)
    if not isinstance(value, str):
        raise TranslationError("must be a string", path=f"{path}.{name}")
    return value


def read_source(block: Block, path: str) -> Block:
    """The `source` object of an image or document."""
    source = block.get("source")
    if not isinstance(source, dict):
        raise TranslationError("must be an object", path=f"{path}.source")
    return source


def merge_parts(parts: list[Part]) -> str | list[dict[str, Json]]:
    """The content of a message: one string when all parts are text, else a list in which neighbours are joined."""
    if len(parts) == 1 and isinstance(parts[0], str):
        return parts[0]
    if all(isinstance(part, str) for part in parts):
        return "\n\n".join(parts)  # type: ignore[arg-type]  # they are strings
    content: list[dict[str, Json]] = []
    for part in parts:
        if isinstance(part, dict):
            content.append(part)
        elif content and content[-1]["type"] == "text":
            content[-1]["text"] += "\n\n" + part
        else:
            content.append({"type": "text", "text": part})
    return content


def _read_child_text(child: Json, path: str) -> str:
    if not isinstance(child, dict):
        raise TranslationError("must be a text block", path=path)
    return read_string(child, "text", path)


def _build_data_url(source: Block, path: str) -> str:
    where = f"{path}.source"
    return f"data:{read_string(source, 'media_type', where)};base64,{read_string(source, 'data', where)}"


def _cites(block: Block) -> bool:
    citations = block.get("citations")
    return isinstance(citations, dict) and citations.get("enabled") is True


def _build_heading(block: Block) -> str:
    """The title and context lines that stand before a document's text."""
    title, context = block.get("title"), block.get("context")
    lines = [f"Document: {title}"] if isinstance(title, str) and title else []
    if isinstance(context, str) and context:
        lines.append(context)
    return "\n".join(lines)


def _join_lines(head: str, text: str) -> str:
    return f"{head}\n\n{text}" if head else text
