"""The conditions of a model server, and what each means for a request. Pure."""

from __future__ import annotations

from enum import Enum

from tests.simulation.models.truth import Did


class Condition(Enum):
    """What is the matter with a server. The value is the word in stories."""

    UP = "is up"
    # Nothing reaches it.
    REFUSED = "refuses connections"
    UNREACHABLE = "does not answer to connections"
    UNRESOLVED = "has a name that does not resolve"
    UNTRUSTED = "has a certificate that nobody trusts"
    NO_TLS = "speaks no TLS"
    # It takes requests.
    RESETS = "resets connections"
    CLOSES = "closes connections without an answer"
    SILENT = "is silent"
    DRIPS = "answers byte by byte"
    HALF = "breaks off in the middle of an answer"
    HTML = "answers with a page"
    WRONG_JSON = "answers with JSON that is no chat reply"
    ENDLESS = "answers without end"
    REDIRECTS = "redirects"
    ERRORS = "answers 500"
    BAD_GATEWAY = "answers 502"
    OVERLOADED = "has no room for any call"
    NOT_LOADED = "does not have the model"
    LOADING = "loads its model"
    REVOKED = "refuses the key"
    NO_QUOTA = "reports that the quota is used up"
    GARBAGE = "answers with what is no answer"


#: Those in which no connection is made.
NO_CONNECTION = frozenset(
    {
        Condition.REFUSED,
        Condition.UNREACHABLE,
        Condition.UNRESOLVED,
        Condition.UNTRUSTED,
        Condition.NO_TLS,
    }
)

#: What a server has done with a request that it gets in a condition.
DOES = {
    Condition.RESETS: Did.FAILED,
    Condition.CLOSES: Did.FAILED,
    Condition.SILENT: Did.SILENT,
    Condition.DRIPS: Did.FAILED,
    Condition.HALF: Did.NOT_USABLE,
    Condition.HTML: Did.NOT_USABLE,
    Condition.WRONG_JSON: Did.NOT_USABLE,
    Condition.ENDLESS: Did.FAILED,
    Condition.REDIRECTS: Did.AWAY,
    Condition.ERRORS: Did.FAILED,
    Condition.BAD_GATEWAY: Did.AWAY,
    Condition.OVERLOADED: Did.OVERLOADED,
    Condition.NOT_LOADED: Did.AWAY,
    Condition.LOADING: Did.OVERLOADED,
    Condition.REVOKED: Did.AWAY,
    Condition.NO_QUOTA: Did.AWAY,
}

#: Of these no docs promise that a good message survives them for ever: each failed call is an
#: attempt. (A condition in which the server is away or overloaded burns none.)
BURNS_ATTEMPTS = frozenset(
    one for one in Condition if DOES.get(one) in (Did.FAILED, Did.SILENT, Did.NOT_USABLE)
) | {Condition.GARBAGE}
