import pytest
from support import TEXTS

from bytelm.corpus import build_corpus
from bytelm.encoding import get_encoding


def build(folder, encoding, texts):
    source = folder / "texts.txt"
    source.write_text("\n".join(texts), encoding="utf-8")
    build_corpus([source], get_encoding(encoding), folder / encoding, workers=0)
    return folder / encoding


@pytest.fixture(scope="session")
def corpora(tmp_path_factory):
    """Folders of tiny corpora: ``train``, ``valid``, and ``utf8``, which is of another encoding."""
    root = tmp_path_factory.mktemp("corpora")
    folders = {}
    for name, encoding, texts in (
        ("train", "dense-ja", TEXTS * 12),
        ("valid", "dense-ja", TEXTS * 3),
        ("utf8", "utf8", TEXTS * 3),
    ):
        (root / name).mkdir()
        folders[name] = build(root / name, encoding, texts)
    return folders
