"""The audit: who did what to what, when and from where; who read a content, too. For those with the scope `admin`."""

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from service.console.asking import Refused
from service.console.pages import Pages, given
from service.console.who import SignedIn
from service.ledger import Ledger
from service.ledger.audit import Wanted

_PAGE = 50

#: Acts that people look for, for the list beside the field.
ACTIONS = (
    "content.read", "console.sign_in", "message.", "key.", "suppression.", "template.", "webhook.",
)  # fmt: skip


class AuditPage:
    """The page of the audit."""

    def __init__(self, pages: Pages, ledger: Ledger) -> None:
        self._pages = pages
        self._ledger = ledger

    async def page(self, request: Request, who: SignedIn) -> Response:
        """Show the newest acts, or those that are looked for."""
        if not who.may("admin"):
            raise Refused(status=403, code="insufficient_scope", detail="The audit needs the scope admin.")
        asked = given(request, "target", "application", "actor", "action", "after", "before")
        filters = {
            name: asked[name] for name in ("target", "application", "actor", "action") if name in asked
        }
        wanted = Wanted(
            target=asked.get("target"),
            application=asked.get("application"),
            actor=asked.get("actor"),
            action=asked.get("action"),
            after=_number(asked.get("after", "")),
            before=None if "after" in asked else _number(asked.get("before", "")),
        )
        found = await self._ledger.audit.page(wanted, most=_PAGE + 1)
        more, entries = len(found) > _PAGE, found[:_PAGE]
        newest_first = entries[::-1] if wanted.before is not None else entries
        older = newer = None
        if newest_first and (more or wanted.before is not None):
            older = f"/console/audit?{urlencode({**filters, 'after': newest_first[-1].id})}"
        if newest_first and (wanted.after is not None or (wanted.before is not None and more)):
            newer = f"/console/audit?{urlencode({**filters, 'before': newest_first[0].id})}"
        return self._pages.page(
            request,
            "audit",
            who,
            entries=newest_first,
            asked=asked,
            actions=ACTIONS,
            older=older,
            newer=newer,
        )


def _number(written: str) -> int | None:
    """Read the number of an entry; what is none counts as not there."""
    return int(written) if written.isascii() and written.isdigit() and len(written) < 19 else None
