"""Advice: which way out an application should take, and what an administrator has to do for it.

    needs.py         what is to be sent, from where, and what the tenant allows
    options.py       the ways out that there are, also those that Postroom does not go itself
    feasibility.py   what has to hold for each way: a table of conditions
    recommend.py     the ordered rules; the first one that holds gives the recommendation
    steps.py         settings, SPF record, PowerShell lines and admin-centre steps of one way,
                     from names, configuration, guide, sender_policy, commands and centres
    compare.py       the guide's comparison of all ways, for this organisation
    retirement.py    when passwords end, and what to do instead

Pure functions over values: nothing here reads a setting, a clock or a socket. "The guide" is
Microsoft's article "How to set up a multifunction device or application to send email using
Microsoft 365 or Office 365". What could not be verified in a source of Microsoft's is said as
such, in the answers too.
"""

from service.routes.advice.needs import Hosting, Needs, Organization, Recipients, Senders
from service.routes.advice.options import Option
from service.routes.advice.recommend import Recommendation, recommend

__all__ = [
    "Hosting",
    "Needs",
    "Option",
    "Organization",
    "Recipients",
    "Recommendation",
    "Senders",
    "recommend",
]
