"""The exceptions of adaptive_split.

AdaptiveSplitError
├── ConfigError (ValueError)     a setting, file or argument is wrong
├── BundleError (ValueError)     a bundle is damaged, or two sides hold different ones
├── TraceError (ValueError)      a recorded trace cannot be read
├── PayloadError (ValueError)    bytes from a peer are not a payload
├── LinkTimeout (TimeoutError)   no reply before the deadline
└── LinkError (ConnectionError)  the server cannot be reached or refused the request
"""


class AdaptiveSplitError(Exception):
    """Anything adaptive_split raises on purpose."""


class ConfigError(AdaptiveSplitError, ValueError):
    """A setting, file or argument is wrong; the message says what must hold."""


class BundleError(AdaptiveSplitError, ValueError):
    """A bundle is damaged, of an unknown version, or differs from the peer's."""


class TraceError(AdaptiveSplitError, ValueError):
    """A recorded trace cannot be read; the message names file and line."""


class PayloadError(AdaptiveSplitError, ValueError):
    """Bytes from a peer are not a payload of the size and shape expected."""


class LinkTimeout(AdaptiveSplitError, TimeoutError):  # noqa: N818 - reads as the built-in it extends
    """No reply arrived before the deadline."""


class LinkError(AdaptiveSplitError, ConnectionError):
    """The server cannot be reached or refused the request."""
