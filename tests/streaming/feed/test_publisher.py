"""Whatever the log does while a batch is published, each message is in it once, in order."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.feed import publisher
from streaming.feed.publisher import Publisher
from streaming.spine.contract import OffsetAheadError, Partition, SpineError, SpineUnavailableError
from streaming.spine.sqlite import SqliteSpine

A, B = Partition("trades", 0), Partition("quotes", 1)


class FailingSpine(SqliteSpine):
    """Takes only the beginning of a batch, or takes it late, or doesn't say where it ends."""

    failures: Iterator[tuple[int, int, int]] = iter(())
    """For each failing call: messages taken at once, messages that arrive when `end` has been asked so
    often in vain, how often it is asked in vain."""

    def publish(self, batch: Mapping[Partition, Sequence[bytes]]) -> dict[Partition, int]:
        failure = next(self.failures, None)
        if failure is None:
            return super().publish(batch)
        taken, late, self.silent = failure
        messages = [(partition, message) for partition, group in batch.items() for message in group]
        self.on_the_way = messages[taken : taken + late]
        for partition, message in messages[:taken]:
            super().publish({partition: [message]})
        if not self.silent:
            self._arrive()
        raise SpineUnavailableError("no answer")

    def end(self, partition: Partition) -> int:
        if getattr(self, "silent", 0):
            self.silent -= 1
            if not self.silent:
                self._arrive()
            raise SpineUnavailableError("no answer")
        return super().end(partition)

    def _arrive(self) -> None:
        for partition, message in self.on_the_way:
            super().publish({partition: [message]})


@given(
    batches=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=4),
    failures=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 3)), max_size=4),
)
def test_each_message_is_in_the_log_once(
    batches: list[tuple[int, int]],
    failures: list[tuple[int, int, int]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with (
        pytest.MonkeyPatch.context() as patch,
        FailingSpine.open(Path(tmp_path_factory.mktemp("log")) / "spine.db") as spine,
    ):
        patch.setattr(publisher, "LONGEST_WAIT", 0.0)
        made = Publisher(spine)
        spine.failures = iter(failures)
        wanted: dict[Partition, list[bytes]] = {A: [], B: []}
        for number, sizes in enumerate(batches):
            batch = {
                partition: [b"%d.%d" % (number, i) for i in range(size)]
                for partition, size in zip((A, B), sizes, strict=True)
            }
            ends = made.ends(after=batch)
            made.publish(batch)
            for partition, messages in batch.items():
                wanted[partition] += messages
                assert ends[partition] == len(wanted[partition])
        for partition, messages in wanted.items():
            assert list(spine.read(partition, 0, 1000).payloads) == messages


def test_another_publisher_is_noticed(tmp_path: Path) -> None:
    with SqliteSpine.open(tmp_path / "spine.db") as spine:
        made = Publisher(spine)
        made.publish({A: [b"0"]})
        spine.publish({A: [b"not ours"]})
        with pytest.raises(
            SpineError, match="somebody else published to trades/0 after offset 1: run one feed"
        ):
            made.publish({A: [b"1"], B: [b"0"]})
    with FailingSpine.open(tmp_path / "failing.db") as spine:
        made = Publisher(spine)
        SqliteSpine.publish(spine, {A: [b"not ours", b"nor this"]})
        spine.failures = iter([(0, 0, 0)])
        with pytest.raises(SpineError, match="somebody else published to trades/0 after offset 0"):
            made.publish({A: [b"0"]})


def test_a_log_that_lost_messages_is_noticed(tmp_path: Path) -> None:
    with FailingSpine.open(tmp_path / "spine.db") as spine:
        made = Publisher(spine)
        made.publish({A: [b"0", b"1"]})
        made._spine = FailingSpine.open(tmp_path / "another.db")
        with pytest.raises(OffsetAheadError, match="ends at offset 0, but 2 was reached before"):
            made.publish({A: [b"2"]})
        made._spine.failures = iter([(0, 0, 0)])
        with pytest.raises(OffsetAheadError, match="ends at offset 1, but 2 was reached before"):
            made.publish({A: [b"2"]})
