"""The presses: what a template becomes, what it may cost, and what is left when something dies.

Real processes throughout. A machine that is busy with other tests may make a press late, which is a 503; so
what is asked here is asked again until it is answered.
"""

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from jinja2.filters import FILTERS

from service.submission.problems import Problem
from service.submission.templating.presses import Shares
from service.submission.templating.rendering import (
    BadTemplate,
    Examined,
    Rendered,
    Renderer,
    RenderJob,
    Source,
)
from tests.submission import processes
from tests.waiting import eventually

#: prctl(2).
PR_SET_CHILD_SUBREAPER = 36

FOREVER = "{% for a in r %}{% for b in r %}{% for c in r %}{% endfor %}{% endfor %}{% endfor %}"
FOREVER_WITH = {"r": [0] * 5000}


@pytest.fixture
async def renderer() -> AsyncIterator[Renderer]:
    made = Renderer()
    yield made
    await made.close()


def a_job(html: str, variables: dict[str, Any] | None = None, **parts: str) -> RenderJob:
    source = Source(subject=parts.get("subject", "s"), text=parts.get("text"), html=html)
    return RenderJob(source=source, variables=variables or {})


async def render(
    renderer: Renderer, *jobs: RenderJob, application: str = "a"
) -> list[Rendered | BadTemplate]:
    async def answered() -> list[Rendered | BadTemplate] | None:
        try:
            return await renderer.render(jobs, application=application)
        except Problem as problem:
            assert problem.code == "rendering_busy"  # noqa: PT017
            await asyncio.sleep(0.2)
            return None

    return await eventually(answered)


async def one(
    renderer: Renderer, html: str, variables: dict[str, Any] | None = None
) -> Rendered | BadTemplate:
    return (await render(renderer, a_job(html, variables)))[0]


async def html_of(renderer: Renderer, html: str, variables: dict[str, Any] | None = None) -> str | None:
    rendered = await one(renderer, html, variables)
    assert isinstance(rendered, Rendered), rendered
    return rendered.html


async def code_of(renderer: Renderer, html: str, variables: dict[str, Any] | None = None) -> str:
    bad = await one(renderer, html, variables)
    assert isinstance(bad, BadTemplate), bad
    return bad.code


async def a_bomb(renderer: Renderer, application: str = "a") -> BadTemplate | str:
    """Set a bomb off that lasts as long as it may; a press that dies under it may make it a 503."""
    try:
        (bad,) = await renderer.render([a_job(FOREVER, FOREVER_WITH)], application=application)
    except Problem as problem:
        return problem.code
    assert isinstance(bad, BadTemplate)
    return bad


async def the_copy(press: int) -> int:
    """The copy that a press made for what it prints now."""
    return await eventually(lambda: next(iter(processes.children_of(press)), None))


# -- what comes out ------------------------------------------------------------------------


async def test_only_html_is_escaped(renderer: Renderer) -> None:
    """A variable is escaped in the HTML, and is itself in text and subject; Unicode comes through."""
    (rendered,) = await render(
        renderer, a_job("<p>{{ x }}</p>", {"x": "<ü&😀>"}, text="{{ x }}", subject="{{ x }}")
    )

    assert rendered == Rendered(subject="<ü&😀>", text="<ü&😀>", html="<p>&lt;ü&amp;😀&gt;</p>")


@pytest.mark.parametrize(
    ("template", "variables", "line", "variable"),
    [
        ("{{ name }}", {}, 1, "name"),
        ("a\n\n{{ user.name }}", {}, 3, "user"),
        ("a\n{{ user.name }}", {"user": {}}, 2, "user.name"),
        ("{{ a['b'].c }}", {"a": {"b": {}}}, 1, "a.b.c"),
        ("{{ a[0] }}", {"a": []}, 1, "a.0"),
        ("\n{% if vip %}x{% endif %}", {}, 2, "vip"),
        ("{% for x in rows %}\n{{ x.y }}{% endfor %}", {"rows": [{"y": 1}, {}]}, 2, "x.y"),
        ("{% macro m(z) %}\n{{ z.q }}{% endmacro %}{{ m(a) }}", {"a": {}}, 2, "z.q"),
        ("{{ a[b] }}", {"a": {}, "b": "canary"}, 1, None),
        ("{{ rows|map(attribute='y')|join }}", {"rows": [{}]}, 1, "y"),
        ("{{ order.items }}", {}, 1, "order"),
    ],
)
async def test_a_missing_variable_has_a_line_and_a_name(
    renderer: Renderer, template: str, variables: dict[str, Any], line: int, variable: str | None
) -> None:
    """By the template's own words, never by a name that came in with the variables."""
    bad = await one(renderer, template, variables)

    assert isinstance(bad, BadTemplate)
    assert (bad.code, bad.part, bad.line, bad.variable) == (
        "template_variable_missing",
        "html",
        line,
        variable,
    )
    assert "canary" not in str(bad)


async def test_what_is_given_may_be_asked_for_first(renderer: Renderer) -> None:
    """`default` and `is defined` work under strict rules; an object's own member goes before a method of Python's."""
    template = "{{ a|default('-') }}{{ b is defined }}{{ order.items }}{{ order.keys()|list|length }}"

    assert await html_of(renderer, template, {"order": {"items": 7}}) == "-False71"


@pytest.mark.parametrize(
    ("template", "line"),
    [("{{ 1 / zero }}", 1), ("\n{{ name + 1 }}", 2), ("{{ name.upper }}", 1), ("{{ '%d'|format(name) }}", 1)],
)
async def test_a_template_that_fails_has_a_line(renderer: Renderer, template: str, line: int) -> None:
    """What Python refuses, and a method that is printed instead of called; the values are not repeated."""
    bad = await one(renderer, template, {"zero": 0, "name": "canary"})

    assert isinstance(bad, BadTemplate)
    assert (bad.code, bad.line) == ("template_failed", line)
    assert "canary" not in str(bad)


@pytest.mark.parametrize("broken", ["{{ '\\ud800' }}", "{{ '\\x00' }}", "{{ x }}"])
async def test_what_no_mail_can_carry_is_refused(renderer: Renderer, broken: str) -> None:
    """NUL and half a surrogate pair, whether they came from the template or with the variables."""
    assert await code_of(renderer, broken, {"x": "\ud800"}) == "template_not_text"


@pytest.mark.parametrize("value", ["a\nb", "a\r\nBcc: eve@example.com", "a\rb"])
async def test_a_subject_is_one_line(renderer: Renderer, value: str) -> None:
    """A line break that a variable brings into the subject is refused, and named as what it is."""
    (bad,) = await render(renderer, a_job("h", {"x": value}, subject="{{ x }}"))

    assert isinstance(bad, BadTemplate)
    assert (bad.code, bad.part) == ("template_subject_not_one_line", "subject")


async def test_a_merge_is_rendered_job_by_job(renderer: Renderer) -> None:
    """500 messages of one version in one call, in order; the bad one among them stops no other."""
    jobs = [
        a_job("<p>{{ n }}{{ x.y }}</p>", {"n": n, "x": {} if n == 250 else {"y": "!"}}) for n in range(500)
    ]
    jobs.append(a_job("another {{ n }}", {"n": 500}))

    done = await render(renderer, *jobs)

    assert [each.html for each in done if isinstance(each, Rendered)] == [
        *(f"<p>{n}!</p>" for n in range(500) if n != 250),
        "another 500",
    ]
    assert isinstance(done[250], BadTemplate)


async def test_a_merge_that_takes_too_long_keeps_what_was_done(renderer: Renderer) -> None:
    """Jobs before the one that does not end are rendered, it and those behind it are refused."""
    quick, slow = a_job("{{ 1 }}"), a_job(FOREVER, FOREVER_WITH)

    done = await render(renderer, quick, quick, slow, quick)

    assert [type(each) for each in done] == [Rendered, Rendered, BadTemplate, BadTemplate]


async def test_a_version_is_examined_part_by_part(renderer: Renderer) -> None:
    """Which variables it uses, and every part that is broken; nothing of it runs, and a bomb is found by its part."""
    good = await renderer.examine(
        Source(subject="{{ a }}", text="{% for x in b %}{{ x }}{% endfor %}", html="{{ 1 / c }}"),
        application="a",
    )
    broken = await renderer.examine(
        Source(subject="{{ a", text="{{ b|nothing }}", html="{{ 10 ** (10 ** 7) }}"), application="a"
    )

    assert good == Examined(variables=("a", "b", "c"), faults=())
    assert [(fault.part, fault.code) for fault in broken.faults] == [
        ("subject", "template_syntax"),
        ("text", "template_syntax"),
        ("html", "template_limit_exceeded"),
    ]


#: Something that every filter of Jinja does.
FILTER_EXAMPLES = {
    "abs": "-1|abs", "attr": "'a'|attr('upper')|string|length > 0", "batch": "[1, 2]|batch(2)|list",
    "capitalize": "x|capitalize", "center": "x|center(9)", "count": "x|count", "d": "y|d(1)",
    "default": "y|default(1)", "dictsort": "{'a': 1}|dictsort", "e": "x|e", "escape": "x|escape",
    "filesizeformat": "9999|filesizeformat", "first": "x|first", "float": "'1.5'|float",
    "forceescape": "x|forceescape", "format": "'%s'|format(x)", "groupby": "[{'a': 1}]|groupby('a')|list|length",
    "indent": "x|indent", "int": "'7'|int", "items": "{'a': 1}|items|list", "join": "[1, 2]|join",
    "last": "[1]|last", "length": "x|length", "list": "x|list", "lower": "x|lower",
    "map": "[x]|map('upper')|list", "max": "[1]|max", "min": "[1]|min", "pprint": "{'a': [x]}|pprint",
    "random": "[1]|random", "reject": "[1]|reject('odd')|list", "rejectattr": "[{'a': 1}]|rejectattr('a')|list",
    "replace": "x|replace('a', 'b')", "reverse": "x|reverse", "round": "1.5|round", "safe": "x|safe",
    "select": "[1]|select('odd')|list", "selectattr": "[{'a': 1}]|selectattr('a')|list",
    "slice": "[1, 2]|slice(2)|list", "sort": "[2, 1]|sort", "string": "1|string", "striptags": "'<b>x'|striptags",
    "sum": "[1]|sum", "title": "x|title", "tojson": "{'a': x}|tojson", "trim": "x|trim",
    "truncate": "(x * 99)|truncate(9)", "unique": "[1, 1]|unique|list", "upper": "x|upper",
    "urlencode": "{'a': x}|urlencode", "urlize": "'see https://example.com/?a=ü'|urlize", "wordcount": "x|wordcount",
    "wordwrap": "(x ~ ' ') * 40|wordwrap(9)|length if 0 else ('a b c'|wordwrap(1))", "xmlattr": "{'a': x}|xmlattr",
}  # fmt: skip


async def test_every_filter_works_where_nothing_can_be_opened(renderer: Renderer) -> None:
    """A copy has no descriptor left for a late import, so everything that Jinja needs is there before."""
    assert FILTER_EXAMPLES.keys() == FILTERS.keys()
    names = [name for name in FILTER_EXAMPLES if name != "attr"]

    done = await render(
        renderer, *(a_job(f"{{{{ {FILTER_EXAMPLES[name]} }}}}", {"x": "ünï"}) for name in names)
    )

    failed = [name for name, each in zip(names, done, strict=True) if isinstance(each, BadTemplate)]
    assert failed == []


# -- what does not come out ----------------------------------------------------------------


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''['__class__'] }}",
        "{{ ''|attr('__class__') }}",
        "{{ ''|attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
        "{{ [x]|map(attribute='__class__')|list }}{{ x.__class__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ self._TemplateReference__context.environment }}",
        "{{ namespace.__init__.__globals__.os }}",
        "{{ joiner.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ dict.__subclasses__() }}",
        "{{ range.__class__ }}",
        "{{ '{0.__class__.__mro__}'.format(x) }}",
        "{{ ('{0.__class__}'|safe).format(x) }}",
        "{{ '{a.__class__}'.format_map({'a': x}) }}",
        "{{ [].append(1) }}",
        "{{ rows.append(1) }}",
        "{% macro m() %}{% endmacro %}{{ m.__init__.__globals__ }}",
        "{% for i in [1] %}{{ loop.__class__ }}{% endfor %}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% from 'os' import path %}",
        "{% extends x %}",
    ],
)
async def test_the_sandbox_has_no_way_out(renderer: Renderer, attack: str) -> None:
    """Attributes of Python, by whatever way, changes of values, and other templates are refused."""
    assert await code_of(renderer, attack, {"x": "a", "rows": [1]}) == "template_forbidden"


@pytest.mark.parametrize(
    "name", ["lipsum", "config", "request", "environment", "os", "__builtins__", "context"]
)
async def test_nothing_dangerous_is_global(renderer: Renderer, name: str) -> None:
    """A template knows its variables, and range, dict, cycler, joiner and namespace."""
    assert await code_of(renderer, f"{{{{ {name} }}}}") == "template_variable_missing"


async def test_nothing_is_left_for_the_next_template(renderer: Renderer) -> None:
    """Each rendering has a copy of its own: what one sets, the next one does not find."""
    await html_of(renderer, "{% set leak = 'canary' %}{% set ns = namespace(leak=1) %}{{ leak }}")

    assert await html_of(renderer, "{{ leak is defined }}{{ ns is defined }}") == "FalseFalse"


@pytest.mark.parametrize(
    "bomb",
    [
        "{{ 'a' * 10 ** 9 }}",
        "{{ x * 10 ** 9 }}",
        "{{ 10 ** (10 ** 7) }}",
        "{{ [0] * 10 ** 9 }}",
        "{{ [[0] * 10 ** 6] * 10 ** 6 }}",
        "{{ '%*d'|format(10 ** 9, 1) }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ '{:1000000000d}'.format(1) }}",
        "{{ x|center(10 ** 9) }}",
        "{{ (x ~ '\n')|indent(10 ** 9) }}",
        "{{ [1]|batch(10 ** 9, 0)|list }}",
        "{{ [1]|slice(10 ** 9)|list }}",
        "{{ (range(99999)|list) * 99999 }}",
        "{{ x.ljust(10 ** 9) }}",
        "{{ (x * 10 ** 7).replace(x, x * 100) }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{{ x * 1000 }}{% endfor %}",
        "{% set ns = namespace(a=x) %}{% for i in range(99) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
        "{{ x" + "|e" * 50_000 + " }}",
        "{{ x" + ".a" * 50_000 + " }}",
        "{{ " + "-" * 50_000 + "1 }}",
        "{% if x %}" * 5_000 + "{% endif %}" * 5_000,
        "{{ x * 5000001 }}",
    ],
)
async def test_a_bomb_costs_its_limit_and_no_more(renderer: Renderer, bomb: str) -> None:
    """Time, memory, output and depth are bounded; the next template is rendered, and our own memory is untouched."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    code = await code_of(renderer, bomb, {"x": "a"})

    assert code == "template_limit_exceeded"
    assert await html_of(renderer, "{{ 1 }}") == "1"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


async def test_variables_have_a_limit_of_size(renderer: Renderer) -> None:
    """More than 10 MB of variables in one call are refused before a press sees them."""
    assert await code_of(renderer, "{{ x }}", {"x": "a" * 10_000_001}) == "template_limit_exceeded"
    assert processes.presses() == []


# -- the processes -------------------------------------------------------------------------


async def test_no_press_runs_before_it_is_needed_or_after_the_end() -> None:
    """The first template starts one press, and closing leaves none, whatever is going on."""
    renderer = Renderer()
    none = processes.presses()
    await html_of(renderer, "{{ 1 }}")
    (press,) = processes.presses()
    bomb = asyncio.create_task(a_bomb(renderer))
    copy = await the_copy(press)

    await renderer.close()

    assert none == processes.presses() == []
    assert await bomb == "rendering_busy"
    await eventually(lambda: not processes.runs(copy))
    with pytest.raises(Problem) as refused:
        await renderer.render([a_job("x")], application="a")
    assert refused.value.code == "rendering_busy"


async def test_a_press_gets_nothing_of_ours(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    """No environment, which has secrets, and no descriptor but its two pipes; its memory is bounded."""
    monkeypatch.setenv("POSTROOM_DATABASE_URL", "canary")
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with server:
        await html_of(renderer, "{{ 1 }}")
        (press,) = processes.presses()
        found = processes.descriptors(press)

    assert processes.environment(press) == b""
    assert found.keys() == {0, 1, 2}
    assert not any("socket" in leads_to for leads_to in found.values())
    assert resource.prlimit(press, resource.RLIMIT_AS)[1] == 256 * 1024 * 1024


async def test_a_press_that_is_killed_is_replaced(renderer: Renderer) -> None:
    """In the middle of a rendering, with its copy; the next template has another press."""
    await html_of(renderer, "{{ 1 }}")
    (press,) = processes.presses()
    bomb = asyncio.create_task(a_bomb(renderer))
    copy = await the_copy(press)

    os.kill(press, signal.SIGKILL)
    ended = await bomb

    assert isinstance(ended, BadTemplate) or ended == "rendering_busy"
    assert await html_of(renderer, "{{ 2 }}") == "2"
    assert press not in processes.presses()
    await eventually(lambda: not processes.runs(copy))


@pytest.fixture
def first_process() -> Iterator[None]:
    """Be what the first process of a container is: the one whose children the orphans become."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    yield
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.mark.parametrize("killed", ["by its owner", "by the kernel"])
@pytest.mark.usefixtures("first_process")
async def test_the_first_process_of_a_container_buries_the_copies(killed: str) -> None:
    """A press that is killed leaves its copy to the API: it ends, and no zombie stays."""
    renderer = Renderer()
    await html_of(renderer, "{{ 1 }}")
    (press,) = processes.presses()
    bomb = asyncio.create_task(a_bomb(renderer))
    copy = await the_copy(press)

    if killed == "by the kernel":
        os.kill(press, signal.SIGKILL)
        await bomb
    await renderer.close()
    await bomb

    await eventually(lambda: copy not in processes.children_of(os.getpid()))


async def test_an_idle_press_that_is_killed_is_not_noticed(renderer: Renderer) -> None:
    """What is asked next is answered, by another press."""
    await html_of(renderer, "{{ 1 }}")
    (press,) = processes.presses()

    os.kill(press, signal.SIGKILL)

    assert await html_of(renderer, "{{ 2 }}") == "2"
    assert press not in processes.presses()


async def test_a_copy_that_is_killed_is_tried_again(renderer: Renderer) -> None:
    """The kernel, short of memory, may end a copy: its press goes on."""
    await html_of(renderer, "{{ 1 }}")
    (press,) = processes.presses()
    bomb = asyncio.create_task(a_bomb(renderer))

    os.kill(await the_copy(press), signal.SIGKILL)
    ended = await bomb

    assert isinstance(ended, BadTemplate) or ended == "rendering_busy"
    assert await html_of(renderer, "{{ 2 }}") == "2"
    assert press in processes.presses()


async def test_a_request_that_is_given_up_leaves_no_press_behind(renderer: Renderer) -> None:
    """A caller that goes away in the middle: its press is replaced, because its answer would be the next one's."""
    await html_of(renderer, "{{ 1 }}")
    bomb = asyncio.create_task(a_bomb(renderer))
    await the_copy(processes.presses()[0])

    bomb.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await bomb

    assert [await html_of(renderer, f"{{{{ {n} }}}}") for n in range(4)] == ["0", "1", "2", "3"]
    assert len(processes.presses()) <= 3


PARENT = """
import asyncio, uvloop
from service.submission.templating.rendering import Renderer, RenderJob, Source

async def main():
    renderer = Renderer()
    job = RenderJob(source=Source(subject="s", text=None, html=%r), variables={"r": [0] * 5000})
    while True:
        try:
            await renderer.render([job] * 3, application="a")
        except Exception:
            pass

asyncio.Runner(loop_factory=uvloop.new_event_loop).run(main())
"""


async def test_presses_die_with_the_api() -> None:
    """After a kill -9 of their parent in the middle of a rendering neither press nor copy goes on; on uvloop too."""
    root = Path(__file__).resolve().parents[2]
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT % FOREVER, cwd=root)
    press = await eventually(lambda: next(iter(processes.presses_of(parent.pid)), None))
    copy = await the_copy(press)
    found = processes.descriptors(press)

    parent.kill()
    await parent.wait()

    await eventually(lambda: not processes.runs(press) and not processes.runs(copy))
    assert found.keys() - {3} == {0, 1, 2}  # 3: where its copy writes


# -- when many want to render --------------------------------------------------------------


async def test_one_application_leaves_a_press_to_the_others(renderer: Renderer) -> None:
    """While one sets off bomb after bomb, another one's template is rendered."""
    await html_of(renderer, "{{ 1 }}")
    bombs = [asyncio.create_task(a_bomb(renderer, "loud")) for _ in range(12)]

    (rendered,) = await render(renderer, a_job("{{ 1 }}"), application="quiet")
    pending = [bomb for bomb in bombs if not bomb.done()]
    await asyncio.gather(*bombs)

    assert isinstance(rendered, Rendered)
    assert pending
    assert len(processes.presses()) <= 3


def test_who_used_little_goes_before_who_used_much() -> None:
    """Use counts less as time goes by; nobody has all presses, and the last one is for those who used little."""
    shares = Shares()
    shares.take("loud")
    shares.give_back("loud", 4.0, now=100.0)
    shares.take("loud")
    shares.take("other")

    assert shares.used("quiet", 100.0) == 0.0 < shares.used("loud", 105.0) < shares.used("loud", 100.0)
    assert (shares.may_take("loud", 100.0), shares.may_take("quiet", 100.0)) == (False, True)
    assert shares.may_take("loud", 200.0)
    shares.take("other")
    assert not shares.may_take("other", 200.0)


async def test_a_queue_that_is_full_says_so(renderer: Renderer) -> None:
    """Beyond its bound a request is a 503 with Retry-After, at once, and what it held is free afterwards."""
    await html_of(renderer, "{{ 1 }}")

    ended = await asyncio.gather(*(a_bomb(renderer) for _ in range(60)))

    assert "rendering_busy" in ended
    assert await html_of(renderer, "{{ 2 }}") == "2"
    with pytest.raises(Problem) as refused:
        await asyncio.gather(
            *(renderer.render([a_job(FOREVER, FOREVER_WITH)], application="a") for _ in range(60))
        )
    assert (refused.value.status, refused.value.code, refused.value.retry_after) == (503, "rendering_busy", 1)
