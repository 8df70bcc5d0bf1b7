"""Which requests a browser may send for a page from elsewhere: none, unless that was allowed.

A server on this machine has no password, and any page that a browser shows can send requests to it,
or give its own name this machine's address and read the answers too (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass

from fast_style.checks import show
from fast_style.serving_limits import RequestError

_HOST = re.compile(r"(\[[\da-f:.]+\]|[^\s\[\]:/?#@]+)(:\d{1,5})?")
_READING = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """Who may ask.

    Attributes:
      hosts: Names of the server; a request for another is refused. None takes any name.
      origins: Of pages from elsewhere that may send pictures, such as 'https://my.site'.
    """

    hosts: frozenset[str] | None = None
    origins: frozenset[str] = frozenset()

    def check(self, method: str, headers: Mapping[str, str]) -> None:
        """Refuses what another site's page has a browser send.

        Programs that are no browsers send none of the headers that count here.

        Args:
          method: Of HTTP.
          headers: The request's; names are lower-case.

        Raises:
          RequestError: 403 or 421.
        """
        host = headers.get("host", "").lower()
        self._check_host(host)
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if method in _READING or origin in self.origins or site in ("same-origin", "none"):
            return
        if site is None and (origin is None or origin.partition("://")[2] == host):
            return
        raise RequestError(
            403,
            f"Origin: pages of {show(origin or 'another site')} may not send pictures here; "
            "--allow-origin lets them",
        )

    def _check_host(self, host: str) -> None:
        if self.hosts is None or not host:
            return
        name = _name(host)
        if name not in self.hosts and not is_loopback(name):
            raise RequestError(
                421,
                f"Host: this server answers as localhost, not as {show(host)}; "
                "--allow-origin adds names",
            )


def access_on(address: str, name: str, origins: frozenset[str]) -> Access:
    """Returns who may ask a server.

    Args:
      address: What it listens on. If only this machine can reach that, its names are known.
      name: What the user calls that address.
      origins: Of pages that may send pictures, and so may name their host as the server's: a proxy
        may pass it on.
    """
    if not is_loopback(address):
        return Access(origins=origins)
    names = {_name(origin.partition("://")[2]) for origin in origins}
    return Access(hosts=frozenset({name.lower(), *names}), origins=origins)


def is_origin(text: str) -> bool:
    """Whether a text is an origin as browsers send it: 'https://my.site', 'http://my.site:81'."""
    scheme, _, host = text.partition("://")
    return scheme in ("http", "https") and text == text.lower() and bool(_name(host))


def is_loopback(host: str) -> bool:
    """Whether a host, as a name or an address (of IPv6 perhaps in brackets), is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return False


def _name(host: str) -> str:
    """Returns a host without its port; empty if it is none."""
    found = _HOST.fullmatch(host)
    return found[1] if found else ""
