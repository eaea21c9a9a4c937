"""PR-FL on FEMNIST by writer: the paper's FEMNIST column.

    python scripts/prepare_data.py --what=femnist --leaf_dir=FOLDER
    python scripts/train.py --config=configs/femnist.py --workdir=runs/femnist

The folder is LEAF's output for FEMNIST (JSON with users, user_data, num_samples). 193
writers over ten clients, 62 classes, pixels in [0, 1] and inverted; all other settings
are the paper's (Table II, section IV-A), with 140,000 simulated seconds over 10,000
windows, so 14 s a window.

Time and result: FEMNIST could not be had where this was written, so nothing is claimed;
the loader is tested on a small file in LEAF's format. The paper's Table IV has PR-FL's
own figures. A run of all 10,000 windows is meant for an accelerator.
"""

from ml_collections import config_dict

from prfl_jax.config import load_beside

base = load_beside(__file__, "base.py")


def get_config() -> config_dict.ConfigDict:
    """PR-FL, Conv2 with 62 outputs, 193 writers."""
    c = base.femnist_column()
    c.data.name = "femnist"
    c.data.normalize = "inverted"
    return c
