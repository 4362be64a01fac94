"""The tenant's external recipients of a day, over all routes of Exchange."""

import pytest

from service.sandbox import Sandbox
from tests.sandbox import broken
from tests.sandbox.client import MAILBOX, logged_in, message, met
from tests.sandbox.entra import readback

LIMIT = "550 5.7.233 Your message can't be sent because your tenant exceeded its daily limit"
ONMICROSOFT = "app@contoso.onmicrosoft.com"


async def test_above_the_budget_mail_is_taken_and_comes_back(sandbox: Sandbox) -> None:
    """Pairs of message and external recipient count; those that do not fit are in the report."""
    sandbox.switch(external_per_day=3)

    async with logged_in(sandbox) as client:
        for number in range(2):
            final = await client.send(
                "a@fabrikam.com", "b@fabrikam.com", "c@contoso.com", octets=message(number)
            )
            assert final.code == 250

    first, second = sandbox.taken
    assert (first.returned, second.returned) == ((), ("b@fabrikam.com",))
    assert second.delivered_to == ("a@fabrikam.com", "c@contoso.com")
    (report,) = sandbox.reports
    assert (report.to, report.about, report.recipients) == (MAILBOX, second.id, ("b@fabrikam.com",))
    assert b"Status: 5.7.233" in (sandbox.content(report) or b"")


async def test_the_budget_can_be_told_after_the_dot(sandbox: Sandbox) -> None:
    """Then a message that does not fit whole is refused, a smaller one taken, and mail inside goes on."""
    sandbox.switch(external_per_day=1, external_mode="refuse")

    async with logged_in(sandbox) as client:
        assert str(await client.send("a@fabrikam.com", "b@fabrikam.com")).startswith(LIMIT)
        assert (await client.send("a@fabrikam.com")).code == 250
        assert str(await client.send("a@fabrikam.com", octets=message(2))).startswith(LIMIT)
        assert (await client.send("ana@contoso.com", octets=message(3))).code == 250
        async with readback(sandbox) as http:
            await http.delete("/limits")
        assert (await client.send("a@fabrikam.com", octets=message(4))).code == 250

    assert sandbox.reports == ()


async def test_submission_and_relay_share_the_budget(sandbox: Sandbox) -> None:
    """What a connector relays counts like what a mailbox sends."""
    sandbox.switch(external_per_day=1, external_mode="refuse")

    async with met(sandbox, shows=broken.right(sandbox)) as client:
        assert (await client.send("a@fabrikam.com")).code == 250
    async with logged_in(sandbox) as client:
        assert str(await client.send("a@fabrikam.com", octets=message(2))).startswith(LIMIT)


async def test_a_trial_tenant_hears_it_with_another_number(sandbox: Sandbox) -> None:
    """5.7.232 in place of 5.7.233."""
    sandbox.switch(external_per_day=0, external_mode="refuse", trial=True)

    async with logged_in(sandbox) as client:
        assert (await client.send("a@fabrikam.com")).text.startswith("5.7.232 ")


@pytest.mark.parametrize(("sender", "code"), [(ONMICROSOFT, 550), (MAILBOX, 250)])
async def test_senders_in_onmicrosoft_com_have_a_smaller_budget(
    sandbox: Sandbox, sender: str, code: int
) -> None:
    """Theirs is over first, and the refusal says that it is theirs."""
    sandbox.switch(external_per_day=10, onmicrosoft_per_day=1, external_mode="refuse")

    async with met(sandbox, shows=broken.right(sandbox)) as client:
        assert (await client.send("a@fabrikam.com", sender=ONMICROSOFT)).code == 250
        answer = await client.send("b@fabrikam.com", sender=sender, octets=message(2))

    assert answer.code == code
    assert code == 250 or answer.text.startswith("5.7.236 ")


async def test_a_hundred_a_day_from_onmicrosoft_com(sandbox: Sandbox) -> None:
    """That is the number that Microsoft has published."""
    async with met(sandbox, shows=broken.right(sandbox)) as client:
        recipients = [f"r{number}@fabrikam.com" for number in range(101)]
        await client.send(*recipients, sender=ONMICROSOFT)

    assert sandbox.taken[0].returned == ("r100@fabrikam.com",)
