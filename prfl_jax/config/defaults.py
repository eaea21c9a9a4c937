"""Defaults: every key of a config with its default, its unit and its meaning.

A config is an `ml_collections.ConfigDict` made by `default_config()`, changed by
a file under `configs/` and by `--config.a.b=value`. `schema.py` holds what each
key may be.
"""

from __future__ import annotations

from ml_collections import config_dict

ENDLESS = 1_000_000  # `rounds` of a run that only its horizon ends

# Paper, Table II: MB/s of the ten clients (MB = 10^6 bytes).
TABLE2_UP_MB_S = (5.0, 4.0, 3.0, 2.5, 1.5, 1.0, 0.6, 0.5, 0.5, 0.4)
TABLE2_DOWN_MB_S = (20.0, 18.0, 12.0, 10.0, 6.0, 4.0, 2.5, 2.0, 2.0, 1.5)


def _group(**keys: object) -> config_dict.ConfigDict:
    return config_dict.ConfigDict(keys)


def default_config() -> config_dict.ConfigDict:
    """Every key with its default: PR-FL in the setting of the paper's FEMNIST column.

    `None` (a placeholder) means "derived"; the comment says from what.

    Examples:
      >>> config = default_config()
      >>> config.clients.number, config.density.interval
      (10, 50)
    """
    c = config_dict.ConfigDict()
    c.seed = 0
    c.strategy = "prfl"  # a row of strategies/; fills the keys of the six seams below (docs/clock.md)
    c.rounds = 1000  # windows, at most
    c.horizon_s = config_dict.placeholder(float)  # simulated seconds, at most; None: no limit
    c.eval_every_s = 100.0  # the evaluation grid, simulated seconds
    c.compare = ()  # strategies run afterwards to the same simulated second, for the summary
    c.stop_early = False  # True: end when the server stops improving; with recovery once all densities are 1

    c.data = _group(
        # images: mnist_embedded | mnist_by_writer | cifar10 | femnist | emnist | tiny_imagenet; texts: shakespeare
        # | shakespeare_words | ptb | leaf_shakespeare | leaf_sent140; speech: spoken_digits; or tfds:NAME | FILE.npz
        # | NAME_TRAIN.ts, or FILE.py:object: a plugin, as for the other names that say so (docs/)
        name="mnist_embedded",
        dir=config_dict.placeholder(str),  # None: $PRFL_DATA_DIR, else ~/prfl_data
        partition="dirichlet",  # iid | dirichlet | labels | writer | writer_iid | fedmp, or FILE.py:object
        alpha=1.0,  # dirichlet: concentration over labels
        labels_per_client=2,  # labels
        fedmp_level=0,  # fedmp: the non-IID level y
        writers=193,  # writer, writer_iid: how many writers (the lowest ids)
        min_images_per_writer=20,
        split_writers_over=config_dict.placeholder(int),  # writer: those with more samples count as two
        train_limit=config_dict.placeholder(int),  # use only so many training samples (drawn by seed)
        test_limit=config_dict.placeholder(int),  # likewise for test samples
        context=80,  # texts: tokens of a sample: the length of windows, the most of a text with a label
        vocabulary=10_000,  # texts: words with a token of their own, the most frequent ones
        unit="words",  # texts of leaf_sent140 and tfds:NAME: words | characters
        targets="every",  # sequences with a target at each step: every | last: the last one alone, as a label
        holdout_fraction=0.1,  # of the training data, for early-stopping signals
        holdout_max=2000,
        augment="none",  # none | crop_flip
        normalize="unit",  # unit: x/255, other samples as they are | inverted: 1-x/255 | cifar10 | standard: series
    )
    c.task = _group(
        # classification: a label for each sample | language_model: the next token at each step, or FILE.py:object
        name="classification",
    )
    c.model = _group(
        # images: conv2 | vgg11 | cnn | alexnet | vgg19 | resnet18 | resnet50; series: cnn1d | gru
        # tokens: char_lstm | word_lstm | text_lstm | transformer_lm (docs/networks.md)
        # or module:object or FILE.py:object (a Flax module class)
        name="conv2",
        width=1.0,  # multiplies hidden widths
        classes=config_dict.placeholder(int),  # outputs; None: as many as the data has (62 in the paper's Conv2)
        init="release",  # release | he | flax
        size_mb=config_dict.placeholder(float),  # MB of the full model as the clock sees it; None: 4 bytes a parameter
        loss="sigmoid",  # sigmoid | softmax
        norm="batch",  # batch | group | none: of vgg19, resnet18 and resnet50 (these two not none)
        # of running statistics, as of batch norm: average: like weights | local: each client keeps its own norm layers
        # (FedBN) | static: recomputed over the clients' data before each evaluation
        state="average",
    )
    c.clients = _group(
        number=10,
        up_mb_s=TABLE2_UP_MB_S,  # tuples by client; of a shorter one client i has entry i mod its length
        down_mb_s=TABLE2_DOWN_MB_S,
        flop_s=(),  # FLOP/s of each client; (): computing takes 0 s, as in the paper
        # as measured on devices (PruneFL), in addition: s of a local step, by client, and s that each weight held adds
        # to it, one number for all kernels or one for each, in the order of the leaves
        step_s=(),
        weight_s=(),
        sigma=0.3,  # of the logarithm of each transfer's speed factor
    )
    c.server = _group(up_mb_s=20.0, down_mb_s=100.0, sigma=0.1, contention=True)
    c.local = _group(
        # sgd | scaled_sgd: HeteroFL's scaler and masked logits | proximal: SGD with prox_mu > 0
        # | proximal_own_steps: FedProx's, as many steps as the median client has time for
        # | scaffold: SGD with control variates
        # | personal: edge pruning's, with masks and values of the client's own
        # | ordered_sgd: FjORD's width at each step | magnitude_sgd: FIARSE's masks at each step, or FILE.py:object
        name="sgd",
        steps=5,
        batch_size=20,
        lr=0.25,
        optimizer="sgd",  # sgd | adam, adamw, lion, ...: a factory of optax | FILE.py:object
        optimizer_state="reset",  # its moments: reset: begun anew in each round | kept: by the client, for its next one
        optimizer_args="{}",  # the factory's keyword arguments, the JSON text of an object: {"b1": 0.9}
        momentum=0.0,  # of sgd
        clip_grad_norm=config_dict.placeholder(float),  # a step's gradient longer than this is shortened; None: none is
        # of the proximal term mu/2 |w - w_sent|^2 (FedAsync's option, FedProx); 0 with proximal_own_steps: 0.01
        prox_mu=0.0,
        lr_schedule="constant",  # over the steps of a round: constant | linear | cosine, or FILE.py:object
        lr_decay=1.0,  # lr * lr_decay ** (simulated time / (lr_dt_ref_s * lr_decay_rounds))
        lr_decay_rounds=10000,
        lr_dt_ref_s=config_dict.placeholder(float),  # None: window.dt_s
    )

    # The six seams. `strategy` fills in `name`/`close`; a config file or the command line may then override.
    c.submodel = _group(
        # nested: by importance | leading: the first channels | rolling: channels that move on each window
        # | magnitude: the largest weights at each dispatch | filters: the channels of largest l1 norm at each dispatch
        # | layerwise, threshold: the clients' own masks (edge pruning)
        # | own_shares, own_sizes: likewise, with a share or a size that the density policy decides
        # | prunefl, conventional, snip, iterative: one mask of the server for all clients
        # | full, or FILE.py:object
        name="nested",
        importance="server_sq_grad",  # server_sq_grad | client_sq_grad | weight | product
    )
    c.pruning = _group(
        # of masks that clients or the server choose during the run (submodel.name: layerwise, threshold, ...)
        interval=50,  # windows between two prunings of a client, or of the server (prunefl)
        share=0.3,  # of a layer's weights that are held, the smallest ones go; some of them come back (Algorithm 2)
        votes=0.6,  # thres_mask / N: share of the clients that must hold a weight of the server's mask
        initial_votes=0.8,  # likewise in the initial stage
        votes_above=False,  # True: more clients than that, as printed
        initial_density=0.2,  # thres_density: the initial stage ends when the server's mask holds less
        initial_rounds=config_dict.placeholder(int),  # at most; None: layerwise 10, threshold 1, prunefl 1000
        initial_steps=50,  # local steps of a round of the initial stage
        recovered="zero",  # zero | stale: the value of a weight that comes back, stale: the client's last one
        gradients="interval",  # interval | round: squared gradients since the last pruning, or of the pruning round
        density=0.1,  # snip, iterative: share of the weights of kernels that is left in the end
        times=20,  # iterative: prunings, in the first half of so many rounds
        rounds=config_dict.placeholder(int),  # None: the key `rounds`
    )
    c.density = _group(
        # full | time_balance | recovery | tiers | tiers_recovery | bandit | bandit_literal | bandit_uniform: FedMP's
        # E-UCB, as it learns, as printed, and with one ratio for all (UP-FL), or FILE.py:object
        name="recovery",
        tiers=(1.0, 0.5, 0.25, 0.125, 0.0625),  # tiers: HeteroFL's rates
        rule="normalised",  # normalised | damped | literal
        interval=50,  # I, windows between two decisions; the bandits decide after each
        min_density=0.05,
        delta_rho=0.2,
        patience=10,  # evaluations (one per interval)
        min_delta=0.0,  # the least improvement, in the unit of the task's metric
        # settings of the bandits (FedMP, Algorithm 1); None means the choice's own
        theta=config_dict.placeholder(float),  # ranges of ratios wider than this are split; None: 0.1, literal 0.05
        # lambda: an observation counts so much less after each further one; None: 0.998, literal 0.95
        discount=config_dict.placeholder(float),
        exploration=config_dict.placeholder(float),  # factor of the padding c_k; None: 0.4, literal 1
        # rewards are divided by their discounted mean | the largest so far | unscaled: nothing; None: mean, literal
        # unscaled
        reward_scale=config_dict.placeholder(str),
        gap_floor=0.05,  # added to abs(T_n - mean T) / mean T in the reward; literal: the least that it counts as
        # dLoss in the reward: own: of the client | global: of the mean over clients; None: bandit global,
        # the others own
        loss_change=config_dict.placeholder(str),
    )
    c.aggregation = _group(
        name="buffered_maskfedavg",  # a choice of aggregate/choices.py, or FILE.py:object
        # eta_g, Eq. 11, and the rate of `optimizer`; None: 1, of adam and yogi 0.01, of adagrad 0.1
        server_lr=config_dict.placeholder(float),
        # none: W becomes the aggregate | sgdm, adagrad, adam, yogi: a step from W towards it (Reddi et al. 2021), or
        # FILE.py:object (optax)
        optimizer="none",
        optimizer_args="{}",  # JSON: {"momentum": 0.9} of sgdm; {"b1": 0.9, "b2": 0.99, "tau": 0.001} of the others
        alpha=0.6,  # mixing: how far W moves to a fresh arrival (FedAsync)
        staleness="polynomial",  # constant | polynomial: (tau+1)^-a | hinge: 1 if tau <= b else 1/(a(tau-b)+1)
        # None: 0.6 (polynomial; 0.5 for strategy fedasync), 10 (hinge); hash and report have the number in force
        staleness_a=config_dict.placeholder(float),
        staleness_b=4.0,
        client_weight="samples_per_round",  # samples_per_round | dataset | uniform
        byzantine=2,  # f: how many clients median, trimmed_mean, krum and multi_krum outvote
        clip_norm=config_dict.placeholder(float),  # an update longer than this is shortened to it; None: none is
    )
    c.window = _group(
        close="fixed",  # fixed | all | k_arrivals | each_arrival | release | deadline (docs/clock.md)
        dt_s=14.0,
        first_waits_for_all=True,
        k=3,  # k_arrivals: how many close a window
        dispatch="window_end",  # window_end | on_arrival
        release_min_s=0.5,
        cohort=0,  # number of clients that take part at a time, drawn anew for every dispatch; 0: all
        deadline_share=0.85,  # deadline: the factor times the time in which this share has arrived; the rest is cut off
        deadline_factor=1.5,
    )
    c.transport = _group(
        name="delta",  # delta | distinct | one_copy | unicast
        bytes="counted",  # counted: 4 bytes a value plus masks | density: density x model size (docs/clock.md)
        # of its update a client sends: whole: all | topk: the largest values, as many as it has time for (FlexCom), and
        # it keeps the others for its next update
        upload="whole",
    )

    c.attack = _group(
        name="none",  # none | sign_flip | noise | nan | label_flip
        number=0,  # so many clients are malicious, drawn by seed
        clients=(),  # or these
        scale=1.0,  # sign_flip: w_sent - scale (w - w_sent); noise: w_sent + scale N(0, 1)
    )
    c.privacy = _group(
        noise_multiplier=0.0,  # z: noise of deviation z clip_norm on each weight of each update as it arrives
        delta=1e-5,
    )
    c.faults = _group(
        dropout=0.0,  # probability, of each dispatch, that the client takes the model and then does nothing
        crash=0.0,  # ... that it stops somewhere in its computing
        lost_upload=0.0,  # ... that its update is sent and never counts
        repeated_upload=0.0,  # ... that its update is sent twice; it counts once
        join_s=(),  # tuples by client, repeated in turn: simulated s it comes at (): all from the start
        leave_s=(),  # ... and leaves at for good, (): no client does; a client that stays has one after the end, as 1e9
        availability=config_dict.placeholder(str),  # a CSV client,from,to (s): clients in it are there only then
        bandwidth=config_dict.placeholder(str),  # a CSV client,time,up,down (s, MB/s), instead of clients.*_mb_s
    )

    c.eval = _group(
        model="mask",  # mask | fedavg: the headline server model
        signal="heldout",  # heldout | test: what early stopping sees
        batch_size=100,  # samples per evaluation call (im2col memory grows with it)
        # levels of the task's metric for the time to each; None: (0.8, 0.9) of a share, as accuracy, none of others
        thresholds=config_dict.placeholder(tuple),
    )
    c.engine = _group(
        clients="auto",  # auto | map | vmap
        # arrival: as each update arrives | pending: all clients in flight at once, when the first of them arrives;
        # auto: pending on an accelerator with vmap where a window does not wait for everyone
        train="auto",
        # float32 | tensorfloat32 | bfloat16: what an accelerator computes products in; a CPU has float32 always
        matmul="float32",
        store="float32",  # float32 | bfloat16: models in flight and in the buffer; training and averages stay float32
        models="device",  # device | host: where models are kept (host: moved one at a time; one device only)
        # a client with a sub-model of channels is trained in the narrowest network that holds it: of the full one and
        # these shares of its channels; (): full; None: on a CPU (0.25, 0.5, 0.75) for large networks (docs/speed.md)
        widths=config_dict.placeholder(tuple),
        group=0,  # vmap: so many are trained at once; 0: as many as there are clients on a device
        devices=0,  # clients are shared out over so many; 0: all, of a CPU's cores only where windows have all clients
        chunk_windows=0,  # 0: from the measured speed, about chunk_s of host time
        chunk_s=3.0,
        unroll=True,
        deterministic=False,
    )
    c.checkpoint = _group(every_s=120.0, keep=3)
    return c
