"""The hand-over between threads: bounded, closable from both ends, errors raised at the other end."""

import threading

import pytest

from nst_video.media.channel import Channel, ChannelClosed


def run(work) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_items_arrive_in_order_and_no_more_than_fit_wait():
    channel, waiting = Channel(2), []

    def send() -> None:
        for number in range(50):
            channel.put(number)
            waiting.append(number)
        channel.finish()

    thread = run(send)
    for received, number in enumerate(channel):
        assert number == received
        assert len(waiting) <= received + 4  # two wait, one is on either side
    thread.join(5)
    assert not thread.is_alive()
    assert received == 49


def test_the_senders_error_comes_after_what_it_sent():
    channel = Channel(4)
    channel.put("kept")
    channel.finish(ValueError("broken"))
    received = iter(channel)
    assert next(received) == "kept"
    with pytest.raises(ValueError, match="broken"):
        next(received)


def test_a_waiting_sender_is_woken_when_the_receiver_leaves():
    channel, seen = Channel(1), []

    def send() -> None:
        try:
            while True:
                channel.put(0)
        except ChannelClosed as error:
            seen.append(error)

    thread = run(send)
    channel.close()
    thread.join(5)
    assert not thread.is_alive()
    assert len(seen) == 1
    assert channel.closed


def test_the_receivers_first_error_reaches_the_sender():
    channel = Channel(1)
    channel.close(MemoryError("first"))
    channel.close()
    with pytest.raises(MemoryError, match="first"):
        channel.put(0)
    with pytest.raises(MemoryError, match="first"):
        channel.check()


def test_a_receiver_is_woken_when_the_channel_is_closed():
    channel, received = Channel(1), []
    thread = run(lambda: received.extend(channel))
    channel.close()
    thread.join(5)
    assert not thread.is_alive()
    assert received == []
