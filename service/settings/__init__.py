"""The configuration: read once at the start, checked as a whole, then only handed on.

    sources.py       the layers: YAML file, environment, files with secrets; who gave what
    values.py        how single values are written: 30s, 35MB, host:port, addresses
    group.py         what the groups of settings have in common
    shapes.py        the groups, field by field
    route_shapes.py  those of routes: limits, logins, mailboxes, one class a kind
    rules.py         what must hold between them: the guide's rules
    cautions.py      what is allowed and will surprise someone
    build.py         the values of the rooms below, with the defaults of each kind of route
    settings.py      all of it together: `Settings.load`

There is no global instance. `wiring` reads the settings and gives each part its own.
"""

from service.settings.settings import Setting, Settings
from service.settings.sources import BadSettings

__all__ = ["BadSettings", "Setting", "Settings"]
