"""Names to encodings."""

import threading
import time

import pytest

from bytelm.encoding import DenseEncoding, Utf8Encoding, get_encoding, list_encodings, register, registry
from bytelm.errors import EncodingError


def test_the_packages_encodings_come_first_and_are_built_once():
    assert list_encodings()[:6] == ["utf8", "utf16", "utf32", "ranked2", "dense-ja", "dense-mul"]
    for name in list_encodings():
        assert get_encoding(name).name == name
        assert get_encoding(name) is get_encoding(name)


def test_ranked2_uses_the_characters_of_dense_ja():
    assert get_encoding("ranked2").ranked == get_encoding("dense-ja").ranked


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(EncodingError, match="'utf7', expected one of utf8, utf16, utf32, ranked2, dense-ja"):
        get_encoding("utf7")


def test_register_keeps_the_first_and_refuses_another_table(monkeypatch):
    monkeypatch.setattr(registry, "_known", dict(registry._known))
    mine = DenseEncoding("mine", 210, 38, "雨雪")
    register(mine)
    register(DenseEncoding("mine", 210, 38, "雨雪"))
    assert get_encoding("mine") is mine
    assert list_encodings()[-1] == "mine"
    with pytest.raises(EncodingError, match=r"'mine': found digest [0-9a-f]{64}, expected [0-9a-f]{64}"):
        register(DenseEncoding("mine", 210, 38, "雪雨"))
    register(Utf8Encoding())
    with pytest.raises(EncodingError, match="dense-ja"):
        register(DenseEncoding("dense-ja", 210, 38, "雨雪"))


def test_threads_share_one_object(monkeypatch):
    built = []

    def slow_factory():
        time.sleep(0.05)
        built.append(1)
        return Utf8Encoding()

    monkeypatch.setattr(registry, "_known", {})
    monkeypatch.setitem(registry._BUILTIN, "utf8", slow_factory)
    results = []
    threads = [threading.Thread(target=lambda: results.append(get_encoding("utf8"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert len({id(result) for result in results}) == 1
