"""The press: a process that renders templates and does nothing else. `presses` starts it and talks to it.

For each request it makes a copy of itself (fork; this process has one thread and loaded all it needs), and
the copy renders. What a template may cost is the kernel's business, so that no trick inside a single call
of C, `'a' * 10**9` or `10 ** 10**7`, gets around it: SIGALRM ends the copy at the end of its time, RLIMIT_AS
bounds its memory, and without a free descriptor it can open no file and no socket even if Jinja's sandbox
should fail. No template ever meets what another one left behind.

The press ends when its standard input ends, thus with the API, however that ends; a copy ends with its time.

    request   seconds (double), octets (uint32), JSON {"sources": [{part: source}], "jobs": [[source,
              variables], …]}; without jobs the first source is compiled and examined, part by part
    answer    how the copy ended (int32: 0, its exit code, or minus the signal), octets (uint32), results

A result is a line of JSON and the octets it announces. A copy that is ended early leaves the results it had.

It is run by its path with `python -I`: it imports nothing of the service, and finds nothing in the
environment. Nothing that it says comes out of the variables.
"""

import gc
import html  # noqa: F401
import json
import os
import pprint  # noqa: F401
import re
import resource
import signal
import struct
import textwrap  # noqa: F401
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

# html, pprint, textwrap and jinja2.debug are what Jinja imports in the middle of its work, where a copy cannot
# open a file any more.
import jinja2.debug  # noqa: F401
from jinja2 import StrictUndefined, TemplateSyntaxError, UndefinedError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.lexer import reverse_operators
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing

REQUEST, ANSWER = struct.Struct("!dI"), struct.Struct("!iI")
PARTS = ("subject", "text", "html")

MEMORY = 256 * 1024 * 1024  # octets of address space, the interpreter's own 25 MB among them
PART_OCTETS = 5_000_000  # of one rendered part
RESULT_OCTETS = 20_000_000  # of all that one request renders
_NAME_CHARACTERS = 200  # of a variable's name in an answer


# -- what is wrong with a template ---------------------------------------------------------


class Bad(Exception):
    """A template cannot be compiled, or not rendered with these variables."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        part: str | None,
        line: int | None = None,
        variable: str | None = None,
    ) -> None:
        super().__init__(code)
        place = part if line is None else f"{part}, line {line}"
        self.said = {
            "code": code,
            "detail": detail if place is None else f"{place}: {detail}",
            "part": part,
            "line": line,
            "variable": variable,
        }


class _VariableMissing(UndefinedError):
    def __init__(self, message: str, *, name: object, inside: bool) -> None:
        super().__init__(message)
        self.name = name
        self.inside = inside  # of another value: an attribute or an element of it


class _Strict(StrictUndefined):
    """A variable that was not given; it remembers its name for whoever meets the error."""

    __slots__ = ()

    def __init__(
        self, hint: str | None = None, obj: Any = missing, name: Any = None, exc: Any = UndefinedError
    ) -> None:
        if exc is UndefinedError:
            exc = partial(_VariableMissing, name=name, inside=obj is not missing)
        super().__init__(hint, obj, name, exc)


# -- Jinja ---------------------------------------------------------------------------------


def _printable(value: object) -> object:
    """Refuse to print a method that was not called: its address in memory is nothing for a reader of mail."""
    if callable(value) and not isinstance(value, StrictUndefined):
        raise TypeError
    return value


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox without a loader: a template stands alone."""

    def __init__(self, *, autoescape: bool) -> None:
        super().__init__(autoescape=autoescape, undefined=_Strict, finalize=_printable)
        del self.globals["lipsum"]  # filler text has no business in mail

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Look into an object of JSON first: `order.items` is the caller's, not a method of Python's."""
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


_PLAIN, _HTML = _Environment(autoescape=False), _Environment(autoescape=True)

#: Words of Jinja's own grammar; what else its messages quote is the caller's, and is not repeated.
_GRAMMAR = frozenset(
    {
        *reverse_operators.values(),
        *("name", "string", "integer", "float", "begin", "end", "in", "as", "is", "not", "and", "or", "if"),
        *(
            "elif",
            "else",
            "endif",
            "for",
            "endfor",
            "block",
            "endblock",
            "macro",
            "endmacro",
            "call",
            "endcall",
        ),
        *("filter", "endfilter", "set", "endset", "with", "endwith", "autoescape", "endautoescape", "raw"),
        *(
            "endraw",
            "print",
            "import",
            "from",
            "include",
            "extends",
            "end of template",
            "template data / text",
        ),
        *("begin of print statement", "end of print statement", "begin of comment", "end of comment"),
        *("begin of statement block", "end of statement block"),
    }
)
_QUOTED = re.compile(r"""'[^']*'|"[^"]*\"""")
_ALONE = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)


def _said(message: str) -> str:
    return _QUOTED.sub(lambda found: found[0] if found[0][1:-1] in _GRAMMAR else "'…'", message)


class _Part:
    """One part of a template, compiled."""

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        environment = _HTML if name == "html" else _PLAIN
        try:
            self._ast = environment.parse(source)
            self._refuse_others()
            self.variables = meta.find_undeclared_variables(self._ast)
            self._template = environment.from_string(self._ast)
        except Bad:
            raise
        except TemplateSyntaxError as exc:
            raise Bad("template_syntax", _said(exc.message or ""), part=name, line=exc.lineno) from None
        except (MemoryError, RecursionError):
            raise _too_large(name) from None
        except Exception:
            # Python's own limits (twenty loops inside each other, numbers of thousands of digits), and what
            # fails already while constants are worked out.
            raise Bad("template_syntax", "Jinja cannot compile this.", part=name) from None

    def _refuse_others(self) -> None:
        found = next(self._ast.find_all(_ALONE), None)
        if found is not None:
            detail = "A template stands alone: it cannot include, import or extend another one."
            raise Bad("template_forbidden", detail, part=self.name, line=found.lineno)

    def render(self, variables: Mapping[str, Any]) -> bytes:
        """Render with these variables; raises Bad."""
        octets = bytearray()
        try:
            context = self._template.new_context(dict(variables))
            for piece in self._template.root_render_func(context):
                if len(piece) + len(octets) > PART_OCTETS:
                    break
                octets += piece.encode()
            else:
                return self._checked(bytes(octets))
        except Bad:
            raise
        except _VariableMissing as exc:
            raise self._missing(exc) from None
        except SecurityError as exc:
            detail = "The sandbox does not allow what the template does here."
            raise self._bad("template_forbidden", detail, exc) from None
        except (MemoryError, RecursionError):
            raise _too_large(self.name) from None
        except UnicodeEncodeError:
            raise self._not_text() from None
        except Exception as exc:  # whatever a template gets out of Python; its words may hold variables
            detail = f"The template fails here ({type(exc).__name__})."
            raise self._bad("template_failed", detail, exc) from None
        raise _too_large(self.name)

    def _checked(self, octets: bytes) -> bytes:
        if b"\0" in octets:
            raise self._not_text()
        if len(octets) > PART_OCTETS:
            raise _too_large(self.name)
        if self.name == "subject" and (b"\r" in octets or b"\n" in octets):
            detail = "The subject holds a line break when it is rendered with these variables."
            raise Bad("template_subject_not_one_line", detail, part="subject")
        return octets

    def _bad(self, code: str, detail: str, exc: BaseException, variable: str | None = None) -> Bad:
        return Bad(code, detail, part=self.name, line=self._line(exc), variable=variable)

    def _not_text(self) -> Bad:
        detail = "What is rendered holds NUL, or half of a surrogate pair, which is no character."
        return Bad("template_not_text", detail, part=self.name)

    def _line(self, exc: BaseException) -> int | None:
        """Find the template's line in the traceback: the innermost frame of its compiled code."""
        line, step = None, exc.__traceback__
        while step is not None:
            if step.tb_frame.f_code.co_filename == self._template.filename:
                line = self._template.get_corresponding_lineno(step.tb_lineno)
            step = step.tb_next
        return line

    def _missing(self, exc: _VariableMissing) -> Bad:
        line = self._line(exc)
        variable = self._written(exc.name, line=line, inside=exc.inside)
        detail = f"The template needs {variable or 'a member'}, which was not given."
        return Bad("template_variable_missing", detail, part=self.name, line=line, variable=variable)

    def _written(self, name: object, *, line: int | None, inside: bool) -> str | None:
        """Say how the template itself writes what is missing: `user.name`; None where it does not.

        A name that came out of the variables, as in `user[field]`, is the caller's and is not repeated.
        """
        kinds = (nodes.Getattr, nodes.Getitem, nodes.Const) if inside else (nodes.Name,)
        found = [node for node in self._ast.find_all(kinds) if _last(node) == name]
        found.sort(key=lambda node: (node.lineno != line, isinstance(node, nodes.Const)))
        return _path(found[0])[:_NAME_CHARACTERS] if found else None


def _last(node: nodes.Node) -> object:
    match node:
        case nodes.Name():
            return node.name
        case nodes.Getattr():
            return node.attr
        case nodes.Getitem(arg=nodes.Const(value=value)) | nodes.Const(value=value):
            return value
    return None


def _path(node: nodes.Node) -> str:
    match node:
        case nodes.Name():
            return node.name
        case nodes.Getattr():
            return f"{_path(node.node)}.{node.attr}"
        case nodes.Getitem(arg=nodes.Const(value=value)):
            return f"{_path(node.node)}.{value}"
        case nodes.Const(value=value):
            return str(value)
    return "…"


def _too_large(part: str | None) -> Bad:
    detail = (
        f"The template needs more than it may: {MEMORY // 1024**2} MB of memory, {PART_OCTETS:,} octets "
        "of one rendered part, or its blocks lie too deep inside each other."
    )
    return Bad("template_limit_exceeded", detail, part=part)


# -- one request ---------------------------------------------------------------------------


def results(request: bytes) -> Iterator[bytes]:
    """Carry out one request, result by result."""
    asked = json.loads(request)
    if not asked["jobs"]:
        for name, written in asked["sources"][0].items():
            yield _line_of(_examined(name, written))
        return
    compiled = [_compiled(source) for source in asked["sources"]]
    written = 0
    for index, variables in asked["jobs"]:
        result = _rendered(compiled[index], variables, room=RESULT_OCTETS - written)
        written += len(result)
        yield result


def _line_of(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _examined(name: str, source: str) -> dict[str, Any]:
    """Compile one part: the variables that it uses, or what is wrong with it."""
    try:
        return {"variables": sorted(_Part(name, source).variables), "fault": None}
    except Bad as bad:
        return {"variables": [], "fault": bad.said}


def _compiled(source: Mapping[str, str]) -> list[_Part] | Bad:
    try:
        return [_Part(name, written) for name, written in source.items()]
    except Bad as bad:
        return bad


def _rendered(parts: list[_Part] | Bad, variables: Mapping[str, Any], *, room: int) -> bytes:
    """Render one job, and write it down where there is room for it."""
    if isinstance(parts, Bad):
        return _line_of({"bad": parts.said})
    try:
        done = {part.name: part.render(variables) for part in parts}
    except Bad as bad:
        return _line_of({"bad": bad.said})
    if sum(map(len, done.values())) > room:
        detail = f"All that one request renders may have {RESULT_OCTETS:,} octets: send it in smaller parts."
        return _line_of({"bad": Bad("template_limit_exceeded", detail, part=None).said})
    sizes = {name: len(done[name]) if name in done else None for name in PARTS}
    return b"".join([_line_of(sizes), *done.values()])


# -- the process ---------------------------------------------------------------------------


def _limit(kind: int, most: int) -> None:
    resource.setrlimit(kind, (most, most))


def _copy(request: bytes, seconds: float, out: int) -> None:
    """Be the copy: render, and end. Never returns."""
    code = 1
    try:
        # The default action of SIGALRM: no code of Python's runs, so none can be kept from running.
        signal.setitimer(signal.ITIMER_REAL, seconds)
        os.close(0)
        os.close(1)
        _limit(resource.RLIMIT_CPU, 2)  # should the alarm ever be lost
        _limit(resource.RLIMIT_NOFILE, 0)
        for result in results(request):
            _write(out, result)
        code = 0
    finally:
        os._exit(code)


def _in_a_copy(request: bytes, seconds: float) -> tuple[int, bytes]:
    """Let a copy of this process carry the request out; say how it ended, and what it wrote."""
    mouth, out = os.pipe()
    copy = os.fork()
    if copy == 0:
        os.close(mouth)
        _copy(request, seconds, out)
    os.close(out)
    answer = bytearray()
    while piece := os.read(mouth, 1_000_000):
        answer += piece
    os.close(mouth)
    _, status = os.waitpid(copy, 0)
    return os.waitstatus_to_exitcode(status), bytes(answer)


def _write(out: int, octets: bytes) -> None:
    rest = memoryview(octets)
    while rest:
        rest = rest[os.write(out, rest) :]


def _read(size: int) -> bytes | None:
    """Read so many octets of what the API says; None at the end."""
    octets = bytearray()
    while len(octets) < size:
        piece = os.read(0, size - len(octets))
        if not piece:
            return None
        octets += piece
    return bytes(octets)


def _warm_up() -> None:
    """Use Jinja once, so that no copy has to begin at the beginning; then leave memory as it is."""
    example = "{% for i in list %}{{ name|e|upper }}{% endfor %}{{ x|default('\\u00e9') }}"
    request = {"sources": [dict.fromkeys(PARTS, example)], "jobs": [[0, {"name": "Ana", "list": [1]}]]}
    list(results(json.dumps(request).encode()))
    gc.collect()
    gc.freeze()  # a collection in a copy would touch, and thereby copy, every page


def main() -> None:
    """Serve until the standard input ends."""
    # uvloop hands down every descriptor that is not marked otherwise; nothing of the API's is for us.
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_AS, MEMORY)
    os.nice(5)  # the API goes first
    _warm_up()
    _write(1, ANSWER.pack(0, 0))
    while head := _read(REQUEST.size):
        seconds, size = REQUEST.unpack(head)
        request = _read(size)
        if request is None:
            return
        status, answer = _in_a_copy(request, seconds)
        _write(1, ANSWER.pack(status, len(answer)))
        _write(1, answer)


if __name__ == "__main__":
    main()
