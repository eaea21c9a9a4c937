"""PR-FL on FEMNIST by writer: the paper's FEMNIST column.

    python scripts/prepare_data.py --what=femnist --leaf_dir=FOLDER
    python scripts/train.py --config=configs/femnist.py --workdir=runs/femnist

FOLDER has LEAF's output for FEMNIST (JSON with users, user_data, num_samples). The images
of 193 writers are divided over ten clients; 62 classes, pixels in [0, 1] and inverted. All
other settings are the paper's (Table II, section IV-A): 140,000 simulated s in 10,000
windows of 14 s.

Time and result: not measured, since FEMNIST was not available where this was written. The
loader is tested on a small file in LEAF's format. The paper's Table IV has PR-FL's results.
A run of all 10,000 windows is meant for an accelerator.
"""

from ml_collections import config_dict

from prfl_jax.config import load_beside

base = load_beside(__file__, "base.py")


def get_config() -> config_dict.ConfigDict:
    """Returns PR-FL with Conv2 (62 outputs) on 193 writers."""
    c = base.femnist_column()
    c.data.name = "femnist"
    c.data.normalize = "inverted"
    return c
