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

from prfl_jax import strategies
from prfl_jax.config.defaults import default_config


def get_config() -> config_dict.ConfigDict:
    """PR-FL, Conv2 with 62 outputs, 193 writers."""
    c = strategies.use(default_config(), "prfl")
    c.rounds = 10_000
    c.horizon_s = 140_000.0
    c.eval_every_s = 700.0
    c.data.name = "femnist"
    c.data.partition = "writer"
    c.data.writers = 193
    c.data.normalize = "inverted"
    c.model.name = "conv2"
    c.model.classes = 62
    c.model.size_mb = 26.5
    c.local.lr = 0.25
    c.window.dt_s = 14.0
    c.density.interval = 50
    c.density.patience = 10
    c.density.min_density = 0.05
    return c
