"""Text on disk for training: readers, the build of a corpus, and windows of it."""

from bytelm.corpus.build import BuildProgress as BuildProgress
from bytelm.corpus.build import build_corpus as build_corpus
from bytelm.corpus.corpus import Corpus as Corpus
from bytelm.corpus.counting import CountProgress as CountProgress
from bytelm.corpus.counting import GroupCounts as GroupCounts
from bytelm.corpus.counting import count_groups as count_groups
from bytelm.corpus.counting import weigh as weigh
from bytelm.corpus.default_text import DEFAULT_PROMPTS as DEFAULT_PROMPTS
from bytelm.corpus.default_text import default_texts as default_texts
from bytelm.corpus.default_text import split_default_texts as split_default_texts
from bytelm.corpus.documents import iter_texts as iter_texts
from bytelm.corpus.groups import GroupSource as GroupSource
from bytelm.corpus.groups import in_test as in_test
from bytelm.corpus.groups import iter_groups as iter_groups
from bytelm.corpus.manifest import BadLine as BadLine
from bytelm.corpus.manifest import Manifest as Manifest
from bytelm.corpus.manifest import Shard as Shard
from bytelm.corpus.manifest import SourceSummary as SourceSummary
from bytelm.corpus.readers import Document as Document
from bytelm.corpus.readers import iter_documents as iter_documents
from bytelm.corpus.windows import ContiguousWindows as ContiguousWindows
from bytelm.corpus.windows import RandomWindows as RandomWindows
