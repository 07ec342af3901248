"""The spine's topics in Iggy: made where they are absent, and what they are is checked.

An acknowledgement of a topic that wasn't made with both durabilities "persisted" means memory only, and a
topic that expires or caps its messages drops what nobody has read. Neither can be seen later from what it
answers, so both are refused here.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import structlog
from apache_iggy import Durability, IggyClient, IggyExpiry, MaxTopicSize, TopicDetails

from streaming.spine.contract import SpineError
from streaming.spine.iggy_connection import IggyConnection, IggyRefusedError
from streaming.spine.iggy_requests import CREATE_TOPIC, create_topic

_PERSISTED: Final = "persisted"

_OLDER_SERVER: Final = {"enforce_fsync": "true", "messages_required_to_save": "1"}
"""What comes closest in a server from before 0.9, which knows no durability: it saves each batch."""

_log = structlog.get_logger()


def prepare(
    connection: IggyConnection,
    stream: str,
    topics: Mapping[str, int],
    *,
    segment_bytes: int,
    allow_weak: bool,
) -> dict[str, int]:
    """Look the stream and its topics up, create what is absent, check all of it.

    Args:
        connection: to the server.
        stream: the stream's name.
        topics: each topic and how many partitions it has.
        segment_bytes: size of the files of a topic that is created: what retention drops at once.
        allow_weak: accept topics, and create them, whose acknowledgements don't outlast a crash.

    Returns:
        the size of the segments of each topic, in bytes.

    Raises:
        SpineError: a topic is another one than wanted; or see `IggyConnection.ask`.
    """
    if connection.ask(lambda client: client.get_stream(stream)) is None:
        _unless_it_exists(connection, lambda client: client.create_stream(stream))
    segments: dict[str, int] = {}
    weak: dict[str, str] = {}
    for topic, partitions in topics.items():
        found = _topic(connection, stream, topic)
        if found is None:
            _create(connection, stream, topic, partitions, segment_bytes, allow_weak)
            found = _topic(connection, stream, topic)
        if found is None:
            raise SpineError(f"Iggy's topic {stream}/{topic} vanished as soon as it was made: see its log")
        _check_shape(found, f"{stream}/{topic}", partitions)
        options = {**found.derived_options.to_scalar_dict(), **found.options.to_scalar_dict()}
        if weakness := _weakness(options):
            weak[topic] = weakness
        segments[topic] = int(options.get("segment_size", segment_bytes))
    if weak and not allow_weak:
        topic, weakness = next(iter(weak.items()))
        raise SpineError(
            f"Iggy's topic {stream}/{topic} may lose acknowledged messages when the server crashes "
            f"({weakness}): delete it, so that it is made anew, or accept that with "
            "LAKEHOUSE_IGGY_ALLOW_WEAK_TOPICS=true"
        )
    if weak:
        _log.warning(
            "topics that may lose acknowledged messages when Iggy crashes",
            stream=stream,
            topics=sorted(weak),
            problem=next(iter(weak.values())),
        )
    return segments


def _topic(connection: IggyConnection, stream: str, topic: str) -> TopicDetails | None:
    return connection.ask(lambda client: client.get_topic(stream, topic))


def _unless_it_exists(connection: IggyConnection, create: Callable[[IggyClient], Awaitable[object]]) -> None:
    """Create something, unless another process was quicker; what that one made is checked anyway."""
    try:
        connection.ask(create)
    except IggyRefusedError as error:
        if "already exists" not in error.reason:
            raise


def _create(
    connection: IggyConnection, stream: str, topic: str, partitions: int, segment_bytes: int, allow_weak: bool
) -> None:
    def persisted(client: IggyClient) -> Awaitable[None]:
        return client.create_topic(
            stream,
            topic,
            partitions,
            message_expiry=IggyExpiry.NeverExpire(),
            max_topic_size=MaxTopicSize.Unlimited(),
            segment_size=segment_bytes,
            durability=Durability.PERSISTED,
            consumer_offset_durability=Durability.PERSISTED,
        )

    try:
        _unless_it_exists(connection, persisted)
    except IggyRefusedError as error:
        if not error.reason.startswith("Unsupported option"):
            raise
        if not allow_weak:
            raise SpineError(
                f"Iggy at {connection.address} can't make topics whose acknowledgements outlast a crash: use "
                "version 0.9, or accept that with LAKEHOUSE_IGGY_ALLOW_WEAK_TOPICS=true"
            ) from None
        options = _OLDER_SERVER | {"segment_size": str(segment_bytes)}
        request = create_topic(stream, topic, partitions, options)
        _unless_it_exists(connection, lambda client: client.send_binary_request(CREATE_TOPIC, request))


def _check_shape(topic: TopicDetails, name: str, partitions: int) -> None:
    if topic.partitions_count != partitions:
        advice = (
            "delete it" if partitions == 1 else f"set LAKEHOUSE_SPINE_PARTITIONS={topic.partitions_count}"
        )
        raise SpineError(
            f"Iggy's topic {name} has {topic.partitions_count} partitions, not {partitions}: {advice} or use "
            "another server"
        )
    if not isinstance(topic.message_expiry, IggyExpiry.NeverExpire) or not isinstance(
        topic.max_topic_size, MaxTopicSize.Unlimited
    ):
        raise SpineError(
            f"Iggy's topic {name} drops messages by itself, read or not: set its message_expiry to never and "
            "its max_topic_size to unlimited"
        )


def _weakness(options: Mapping[Any, Any]) -> str:
    """Return which acknowledgements don't outlast a crash; nothing where all do."""
    kinds = {key: options.get(key, "not set") for key in ("durability", "consumer_offset_durability")}
    return ", ".join(f"{key} is {kind}" for key, kind in kinds.items() if kind != _PERSISTED)
