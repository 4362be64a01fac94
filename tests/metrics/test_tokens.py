"""How long access tokens live, and whether they are given."""

from pathlib import Path

import pytest

from service.routes.tokens import Tokens, TokenUnavailable
from service.telemetry import figures
from tests.routes.builders import OAUTH
from tests.routes.entra import Answer, FakeEntra
from tests.routes.test_tokens import Clock, a_directory, a_lane


async def test_a_token_has_the_time_that_is_left(tmp_path: Path) -> None:
    """The figure is the life of the token in hand, 0 when it is over; requests are counted by what came of them."""
    clock = Clock()
    async with FakeEntra(tmp_path) as entra:
        tokens = Tokens(a_directory(entra), clock=clock)
        given, failed = figures.TOKEN_REQUESTS.value("given"), figures.TOKEN_REQUESTS.value("failed")
        none = tokens.lives()
        await tokens.login_for(a_lane())
        fresh = tokens.lives()
        clock.now += 600
        later = tokens.lives()
        clock.now += 3600
        entra.answers.append(Answer(status=503))
        with pytest.raises(TokenUnavailable):
            await tokens.login_for(a_lane())
        over = tokens.lives()

    assert none == {}
    assert fresh == {OAUTH.client_id: 3600.0}
    assert later == {OAUTH.client_id: 3000.0}
    assert over == {OAUTH.client_id: 0.0}
    assert figures.TOKEN_REQUESTS.value("given") == given + 1
    assert figures.TOKEN_REQUESTS.value("failed") == failed + 1
