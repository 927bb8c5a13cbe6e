"""The rows of the task table: formats, sources, sizes, licences.

Revisions are commits of the hub's repositories. Some rows name the branch `refs/convert/parquet` instead, which the hub
makes out of a loading script or a table in text: it is not pinned, and the commit that was read is noted with the data.
The hub's rows of multiple choice have the columns of the published files, so they are read as these are (no `columns`).
"""

from __future__ import annotations

from dataclasses import replace

from xt.core import languages
from xt.core.data.tasks import Hub, Task

_WRITTEN = "written for xt; shipped with it; a sample, not a benchmark"
_NLI = ("entailment", "neutral", "contradiction")
_PAIR = {"first": "premise", "second": "hypothesis", "label": "label"}
_SENTENCES = {"first": "sentence1", "second": "sentence2", "label": "label"}
_QA = {name: name for name in ("context", "question", "answers.text", "answers.answer_start")}
_TAGS = {"words": "tokens", "tags": "ner_tags"}
_GLUE = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
_XTREME = "ec5f1f46e9af79639a90684a7a70a956c4998f04"
_CONVERTED = "refs/convert/parquet"
"""The branch on which the hub keeps Parquet of its own making; not pinned."""
_UPOS = tuple("ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split())
"""Universal Dependencies' tags of the parts of speech."""
_ENTITIES = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")


def _codes(text: str) -> tuple[str, ...]:
    """Return the languages of a list of codes as `xt.core.languages` names them."""
    return tuple(languages.resolve(code).iso3 for code in text.split())


_TATOEBA = _codes(
    "afr amh ang ara arq arz ast awa aze bel ben ber bos bre bul cat cbk ceb ces cha cmn cor csb cym dan deu dsb dtp "
    "ell epo est eus fao fin fra fry gla gle glg gsw heb hin hrv hsb hun hye ido ile ina ind isl ita jav jpn kab kat "
    "kaz khm kor kur kzj lat lfn lit lvs mal mar max mhr mkd mon nds nld nno nob nov oci orv pam pes pms pol por ron "
    "rus slk slv spa sqi srp swe swg swh tam tat tel tgl tha tuk tur tzl uig ukr urd uzb vie war wuu xho yid yue zsm"
)
_DJANGO = _codes(
    "afr ara aze bel bul cat ces ckb cmn cym dan deu dsb ell epo est eus fin fra gla gle glg heb hrv hsb hun hye ina "
    "ind isl ita jpn kat kir kor lit lvs mal mar mkd mon nep nld nno nob pes pol por ron rus slk slv spa sqi srp swe "
    "swh tgk tuk tur uig ukr vie zsm"
)
_SIB = _codes(
    "afr amh ara asm aym bam ben bul cmn deu ell eng est eus fin fra gla guj hau heb hin hun ibo ind ita jav jpn kat "
    "kaz kor lin mal mar mya nld nqo pes por que rus sna som spa swh tam tel tgl tha tur urd vie wol yor zul"
)

_SAMPLES = (
    Task(
        "sample-nli",
        kind="intermediate",
        format="pair",
        title="Natural language inference (sample)",
        labels=_NLI,
        languages="English",
        metric="accuracy",
        source=_WRITTEN,
        licence="Apache-2.0",
        sample=True,
        file="nli.jsonl",
        fields=("premise", "hypothesis"),
        positive="entailment",
        negative="contradiction",
    ),
    Task(
        "sample-paraphrase",
        kind="intermediate",
        format="pair",
        title="Paraphrase detection (sample)",
        labels=("not_paraphrase", "paraphrase"),
        languages="English",
        metric="accuracy",
        source=_WRITTEN,
        licence="Apache-2.0",
        sample=True,
        file="paraphrase.jsonl",
        fields=("sentence1", "sentence2"),
        positive="paraphrase",
        negative="not_paraphrase",
    ),
    Task(
        "sample-choice",
        kind="intermediate",
        format="choice",
        title="Multiple choice, common sense (sample)",
        labels=(),
        languages="English",
        metric="accuracy",
        source=_WRITTEN,
        licence="Apache-2.0",
        sample=True,
        file="choice.jsonl",
        fields=("prompt", "choices"),
    ),
    Task(
        "sample-qa",
        kind="intermediate",
        format="qa",
        title="Extractive question answering (sample)",
        labels=(),
        languages="English",
        metric="f1",
        source=_WRITTEN,
        licence="Apache-2.0",
        sample=True,
        file="qa.jsonl",
        fields=("context", "question", "answer"),
    ),
)
"""Small English samples that come with xt."""

_NINE = (
    Task(
        "anli+",
        kind="intermediate",
        format="pair",
        title="Adversarial NLI, rounds 1 to 3, with MNLI and SNLI",
        labels=_NLI,
        languages="English",
        metric="accuracy",
        source="Nie et al. 2020, arXiv 1910.14599; MNLI and SNLI as in their own rows",
        licence="CC BY-NC 4.0; MNLI and SNLI as in their own rows",
        sizes={"train": 162865, "dev": 3200, "test": 3200},
        hub=Hub(
            "facebook/anli",
            "8e4813d81f46d313dac7892e1c28076917cfcdf9",
            config="plain_text",
            splits={
                "train": "train_r1+train_r2+train_r3",
                "dev": "dev_r1+dev_r2+dev_r3",
                "test": "test_r1+test_r2+test_r3",
            },
            columns=_PAIR,
        ),
        layout="nli-jsonl",
        files={split: (f"anli_v1.0/R[123]/{split}.jsonl",) for split in ("train", "dev", "test")},
        parts=("mnli", "snli"),
        positive="entailment",
        negative="contradiction",
        note="Not for commercial use. The data folder needs anli_v1.0/ as published, and the places of mnli and snli; "
        "1,104,934 training pairs together.",
    ),
    Task(
        "mnli",
        kind="intermediate",
        format="pair",
        title="Multi-genre natural language inference",
        labels=_NLI,
        languages="English",
        metric="accuracy",
        source="Williams et al. 2018, arXiv 1704.05426, as in GLUE; dev: validation_matched",
        licence="OANC, CC BY-SA 3.0 and others by genre",
        sizes={"train": 392702, "dev": 9815},
        hub=Hub(
            "nyu-mll/glue",
            _GLUE,
            config="mnli",
            splits={"train": "train", "dev": "validation_matched"},
            columns=_PAIR,
        ),
        layout="glue-tsv",
        files={
            "train": ("MNLI/train.tsv", "english/MNLI.train.tsv"),
            "dev": ("MNLI/dev_matched.tsv", "english/MNLI.dev.tsv"),
        },
        positive="entailment",
        negative="contradiction",
    ),
    Task(
        "snli",
        kind="intermediate",
        format="pair",
        title="Stanford natural language inference",
        labels=_NLI,
        languages="English",
        metric="accuracy",
        source="Bowman et al. 2015, arXiv 1508.05326; pairs without an agreed label are left out",
        licence="CC BY-SA 4.0",
        sizes={"train": 549367, "dev": 9842, "test": 9824},
        hub=Hub(
            "stanfordnlp/snli",
            "cdb5c3d5eed6ead6e5a341c8e56e669bb666725b",
            config="plain_text",
            splits={"train": "train", "dev": "validation", "test": "test"},
            columns=_PAIR,
        ),
        layout="nli-jsonl",
        files={
            split: (f"snli_1.0/snli_1.0_{split}.jsonl", f"SNLI/{split}.jsonl") for split in ("train", "dev", "test")
        },
        positive="entailment",
        negative="contradiction",
    ),
    Task(
        "qqp",
        kind="intermediate",
        format="pair",
        title="Quora question pairs",
        labels=("not_duplicate", "duplicate"),
        languages="English",
        metric="accuracy",
        source="Quora, as in GLUE (Wang et al. 2019)",
        licence="Quora's terms of service, not for commercial use",
        sizes={"train": 363846, "dev": 40430},
        hub=Hub(
            "nyu-mll/glue",
            _GLUE,
            config="qqp",
            columns={"first": "question1", "second": "question2", "label": "label"},
        ),
        layout="glue-tsv",
        files={"train": ("QQP/train.tsv", "english/QQP.train.tsv"), "dev": ("QQP/dev.tsv", "english/QQP.dev.tsv")},
        positive="duplicate",
        negative="not_duplicate",
        note="Fetch it yourself under Quora's terms: GLUE's QQP/train.tsv and QQP/dev.tsv.",
    ),
    Task(
        "squad-v2",
        kind="intermediate",
        format="qa",
        title="SQuAD 2.0: question answering, some questions without an answer",
        labels=(),
        languages="English",
        metric="f1",
        source="Rajpurkar et al. 2018, arXiv 1806.03822",
        licence="CC BY-SA 4.0",
        sizes={"train": 130319, "dev": 11873},
        hub=Hub(
            "rajpurkar/squad_v2",
            "3ffb306f725f7d2ce8394bc1873b24868140c412",
            config="squad_v2",
            columns=_QA,
        ),
        layout="squad",
        files={
            "train": ("squad/train-v2.0.json", "squad_v2/train-v2.0.json"),
            "dev": ("squad/dev-v2.0.json", "squad_v2/dev-v2.0.json"),
        },
        no_answer=True,
    ),
    Task(
        "squad-v1",
        kind="intermediate",
        format="qa",
        title="SQuAD 1.1: question answering",
        labels=(),
        languages="English",
        metric="f1",
        source="Rajpurkar et al. 2016, arXiv 1606.05250",
        licence="CC BY-SA 4.0",
        sizes={"train": 87599, "dev": 10570},
        hub=Hub("rajpurkar/squad", "7b6d24c440a36b6815f21b70d25016731768db1f", config="plain_text", columns=_QA),
        layout="squad",
        files={"train": ("squad/train-v1.1.json",), "dev": ("squad/dev-v1.1.json",)},
    ),
    Task(
        "hellaswag",
        kind="intermediate",
        format="choice",
        title="HellaSwag: how a description goes on, 4 endings",
        labels=(),
        languages="English",
        metric="accuracy",
        source="Zellers et al. 2019, arXiv 1905.07830",
        licence="MIT",
        sizes={"train": 39905, "dev": 10042},
        hub=Hub(
            "Rowan/hellaswag",
            "218ec52e09a7e7462a5400043bb9a69a41d06b76",
        ),
        layout="hellaswag",
        files={
            "train": ("hellaswag/hellaswag_train.jsonl", "hellaswag/train.jsonl"),
            "dev": ("hellaswag/hellaswag_val.jsonl", "hellaswag/val.jsonl"),
        },
    ),
    Task(
        "ccg",
        kind="intermediate",
        format="tagging",
        title="CCG supertags",
        labels=(),
        languages="English",
        metric="accuracy",
        source="CCGbank (LDC2005T13), Hockenmaier & Steedman 2007; sections 02-21 train, 00 dev, 23 test",
        licence="LDC, paid, no redistribution",
        sizes={"train": 38015},
        layout="ccgbank",
        files=dict.fromkeys(("train", "dev", "test"), ("ccgbank_1_1", "ccgbank", "CCGbank")),
        note="The data cannot be had freely: put your own licensed CCGbank below the data folder, as ccgbank/ with its "
        "data/AUTO; the labels are read from it. udpos-en is a free stand-in for this slot of sentence tagging.",
    ),
    Task(
        "cosmosqa",
        kind="intermediate",
        format="choice",
        title="Cosmos QA: reading between the lines, 4 answers",
        labels=(),
        languages="English",
        metric="accuracy",
        source="Huang et al. 2019, arXiv 1909.00277",
        licence="CC BY 4.0",
        sizes={"train": 25262, "dev": 2985},
        hub=Hub(
            "allenai/cosmos_qa",
            "ed50fe83db62b355759053b1cd5eef344ee371e0",  # of the branch refs/convert/parquet
            config="default",
        ),
        layout="cosmosqa",
        files={
            "train": ("cosmosqa/train.csv", "english/cosmosqa.train.csv"),
            "dev": ("cosmosqa/valid.csv", "english/cosmosqa.valid.csv"),
        },
    ),
    Task(
        "commonsenseqa",
        kind="intermediate",
        format="choice",
        title="CommonsenseQA: 5 answers",
        labels=(),
        languages="English",
        metric="accuracy",
        source="Talmor et al. 2019, arXiv 1811.00937",
        licence="MIT",
        sizes={"train": 9741, "dev": 1221},
        hub=Hub(
            "tau/commonsense_qa",
            "94630fe30dad47192a8546eb75f094926d47e155",
        ),
        layout="commonsenseqa",
        files={
            "train": ("commonsenseqa/train_rand_split.jsonl", "english/commonsenseqa.train.jsonl"),
            "dev": ("commonsenseqa/dev_rand_split.jsonl", "english/commonsenseqa.dev.jsonl"),
        },
    ),
)
"""The nine intermediate tasks of Phang et al. 2020 (arXiv 2005.13013), and SNLI, a part of ANLI+."""

_SICK_HUB = Hub(
    "RobZamp/sick",
    _CONVERTED,
    config="default",
    splits={"train": "train", "dev": "validation", "test": "test"},
    columns={"first": "sentence_A", "second": "sentence_B", "label": "label"},
)
_SICK = Task(
    "sick",
    kind="intermediate",
    format="pair",
    title="SICK: natural language inference on descriptions of scenes",
    labels=_NLI,
    languages="English",
    metric="accuracy",
    source="Marelli et al. 2014, SemEval-2014 task 1",
    licence="CC BY-NC-SA 3.0",
    sizes={"train": 4439, "dev": 495, "test": 4906},
    hub=_SICK_HUB,
    layout="sick",
    files={
        "train": ("SICK/SICK_train.txt", "english/SICK.txt"),
        "dev": ("SICK/SICK_trial.txt",),
        "test": ("SICK/SICK_test_annotated.txt",),
    },
    positive="entailment",
    negative="contradiction",
    note="Not for commercial use.",
)

_SMALL = (
    Task(
        "udpos-en",
        kind="intermediate",
        format="tagging",
        title="Parts of speech in English, a free stand-in for CCG",
        labels=_UPOS,
        languages="English",
        metric="accuracy",
        source="Universal Dependencies' English EWT; from the hub XTREME's English treebanks (21,253 sentences)",
        licence="CC BY-SA 4.0",
        sizes={"train": 12544, "dev": 2001, "test": 2077},
        hub=Hub(
            "google/xtreme",
            _XTREME,
            config="udpos.English",
            splits={"train": "train", "dev": "validation", "test": "test"},
            columns={"words": "tokens", "tags": "pos_tags"},
        ),
        layout="conllu",
        files={
            split: (f"udpos/en_ewt-ud-{split}.conllu", f"UD_English-EWT/en_ewt-ud-{split}.conllu")
            for split in ("train", "dev", "test")
        },
        note="A free stand-in for CCG's slot of sentence tagging.",
    ),
    _SICK,
    replace(
        _SICK,
        name="sick-relatedness",
        format="regression",
        title="SICK: how related two descriptions are, 1 to 5",
        labels=(),
        metric="spearman",
        hub=replace(_SICK_HUB, columns={"first": "sentence_A", "second": "sentence_B", "score": "relatedness_score"}),
        positive="",
        negative="",
    ),
    Task(
        "rte",
        kind="intermediate",
        format="pair",
        title="Recognising textual entailment",
        labels=("entailment", "not_entailment"),
        languages="English",
        metric="accuracy",
        source="RTE-1, 2, 3 and 5, as in GLUE (Wang et al. 2019)",
        licence="for research, see GLUE",
        sizes={"train": 2490, "dev": 277},
        hub=Hub("nyu-mll/glue", _GLUE, config="rte", columns=_SENTENCES),
        layout="glue-tsv",
        files={"train": ("RTE/train.tsv", "english/RTE.train.tsv"), "dev": ("RTE/dev.tsv", "english/RTE.dev.tsv")},
        positive="entailment",
    ),
    Task(
        "mrpc",
        kind="intermediate",
        format="pair",
        title="Microsoft Research paraphrase corpus",
        labels=("not_paraphrase", "paraphrase"),
        languages="English",
        metric="accuracy",
        source="Dolan & Brockett 2005; the hub's copy as GLUE divides it",
        licence="for research, see Microsoft's terms",
        sizes={"train": 3668, "dev": 408, "test": 1725},
        hub=Hub(
            "nyu-mll/glue",
            _GLUE,
            config="mrpc",
            splits={"train": "train", "dev": "validation", "test": "test"},
            columns=_SENTENCES,
        ),
        layout="mrpc",
        files={
            "train": ("MRPC/msr_paraphrase_train.txt", "english/MRPC.train.txt"),
            "dev": ("english/MRPC.dev.txt", "MRPC/msr_paraphrase_test.txt", "english/MRPC.test.txt"),
        },
        positive="paraphrase",
        note="The published files have no dev part: their test part is dev.",
    ),
    Task(
        "xquad-en",
        kind="intermediate",
        format="qa",
        title="XQuAD's English part, a small stand-in for SQuAD",
        labels=(),
        languages="English",
        metric="f1",
        source="Artetxe et al. 2020, arXiv 1910.11856: a part of SQuAD 1.1's dev set",
        licence="CC BY-SA 4.0",
        sizes={"train": 1190},
        hub=Hub(
            "google/xquad",
            "51adfef1c1287aab1d2d91b5bead9bcfb9c68583",
            config="xquad.en",
            splits={"train": "validation"},
            columns=_QA,
        ),
        layout="squad",
        files={"train": ("xquad/xquad.en.json",)},
        note="Its questions are those of the target xquad: what was trained on it says nothing when evaluated there.",
    ),
)
"""Small English tasks that need no licence, or take the place of a large one."""

_TARGETS = (
    Task(
        "xnli",
        kind="target",
        format="pair",
        title="Cross-lingual natural language inference",
        labels=_NLI,
        languages="15 languages",
        metric="accuracy",
        source="Conneau et al. 2018, arXiv 1809.05053",
        licence="CC BY-NC 4.0",
        codes=_codes("ar bg de el en es fr hi ru sw th tr ur vi zh"),
        sizes={"dev": 2490, "test": 5010},
        hub=Hub(
            "facebook/xnli",
            "b8dd5d7af51114dbda02c0e3f6133f332186418e",
            config="{iso1}",
            splits={"dev": "validation", "test": "test"},
            columns=_PAIR,
        ),
        layout="nli-jsonl",
        files={
            "dev": ("XNLI-1.0/xnli.dev.jsonl", "xnli/xnli.dev.jsonl"),
            "test": ("XNLI-1.0/xnli.test.jsonl", "xnli/xnli.test.jsonl"),
        },
        train_on="mnli",
        positive="entailment",
        negative="contradiction",
        note="Not for commercial use.",
    ),
    Task(
        "paws-x",
        kind="target",
        format="pair",
        title="Paraphrases from word scrambling",
        labels=("not_paraphrase", "paraphrase"),
        languages="7 languages",
        metric="accuracy",
        source="Yang et al. 2019, arXiv 1908.11828",
        licence="free for any purpose, with attribution (Google)",
        codes=_codes("de en es fr ja ko zh"),
        sizes={"train": 49401, "dev": 2000, "test": 2000},
        hub=Hub(
            "google-research-datasets/paws-x",
            "4cd8187c404bda33cb1f62b49b001115862acf37",
            config="{iso1}",
            splits={"train": "train", "dev": "validation", "test": "test"},
            columns=_SENTENCES,
        ),
        layout="glue-tsv",
        files={
            "train": ("x-final/{iso1}/train.tsv", "paws-x/{iso1}/train.tsv"),
            "dev": ("x-final/{iso1}/dev_2k.tsv", "paws-x/{iso1}/dev_2k.tsv"),
            "test": ("x-final/{iso1}/test_2k.tsv", "paws-x/{iso1}/test_2k.tsv"),
        },
        positive="paraphrase",
        negative="not_paraphrase",
    ),
    Task(
        "udpos",
        kind="target",
        format="tagging",
        title="Parts of speech",
        labels=_UPOS,
        languages="XTREME's 33 languages",
        metric="accuracy",
        source="Universal Dependencies: 2.5 on the hub, as in XTREME (Hu et al. 2020); any version in a data folder",
        licence="of each treebank, most CC BY-SA 4.0",
        codes=_codes(
            "af ar bg de el en es et eu fa fi fr he hi hu id it ja kk ko mr nl pt ru ta te th tl tr ur vi yo zh"
        ),
        more=_codes("lt pl uk wo ro"),
        sizes={"train": 21253, "dev": 3974, "test": 5440},
        hub=Hub(
            "google/xtreme",
            _XTREME,
            config="udpos.{Name}",
            splits={"train": "train", "dev": "validation", "test": "test"},
            columns={"words": "tokens", "tags": "pos_tags"},
        ),
        layout="conllu",
        files={
            split: (f"udpos/{{iso1}}_*-ud-{split}.conllu", f"ud-treebanks-v2.*/*/{{iso1}}_*-ud-{split}.conllu")
            for split in ("train", "dev", "test")
        },
        note="XTREME reports seqeval's F1 of the tags; this is accuracy, word by word.",
    ),
    Task(
        "panx",
        kind="target",
        format="tagging",
        title="Named entities of Wikipedia (PAN-X, WikiANN)",
        labels=_ENTITIES,
        languages="XTREME's 40 languages",
        metric="span_f1",
        source="Pan et al. 2017, divided by Rahimi et al. 2019, as in XTREME (Hu et al. 2020)",
        licence="ODC-BY",
        codes=_codes(
            "af ar bg bn de el en es et eu fa fi fr he hi hu id it ja jv ka kk ko ml mr ms my nl pt ru sw ta te th tl "
            "tr ur vi yo zh"
        ),
        more=_codes("qu pl uk az lt pa gu ro"),
        sizes={"train": 20000, "dev": 10000, "test": 10000},
        hub=Hub(
            "google/xtreme",
            _XTREME,
            config="PAN-X.{iso1}",
            splits={"train": "train", "dev": "validation", "test": "test"},
            columns=_TAGS,
        ),
        layout="conll",
        files={
            split: (f"panx/{{iso1}}/{split}", f"panx_dataset/{{iso1}}-{split}", f"wikiann/{{iso1}}/{split}")
            for split in ("train", "dev", "test")
        },
    ),
    Task(
        "masakhaner",
        kind="target",
        format="tagging",
        title="MasakhaNER 1.0: named entities in African languages",
        labels=(*_ENTITIES, "B-DATE", "I-DATE"),
        languages="7 of its 10 African languages",
        metric="span_f1",
        source="Adelani et al. 2021, arXiv 2103.11811",
        licence="CC BY-NC 4.0",
        codes=_codes("amh hau ibo pcm swa wol yor"),
        hub=Hub(
            "masakhane/masakhaner",
            _CONVERTED,
            config="{iso3}",
            splits={"train": "train", "dev": "validation", "test": "test"},
            columns=_TAGS,
        ),
        layout="conll",
        files={
            split: (f"masakhaner/{{iso3}}/{split}.txt", f"masakhane-ner/data/{{iso3}}/{split}.txt")
            for split in ("train", "dev", "test")
        },
        note="Not for commercial use. No English part: train on one of its languages. The files are in the repository "
        "masakhane-io/masakhane-ner, should the hub not have made Parquet of them.",
    ),
    Task(
        "xquad",
        kind="target",
        format="qa",
        title="Cross-lingual question answering (XQuAD)",
        labels=(),
        languages="12 languages: XTREME's 11 and XTREME-R's Romanian",
        metric="f1",
        source="Artetxe et al. 2020, arXiv 1910.11856",
        licence="CC BY-SA 4.0",
        codes=_codes("ar de el en es hi ro ru th tr vi zh"),
        sizes={"test": 1190},
        hub=Hub(
            "google/xquad",
            "51adfef1c1287aab1d2d91b5bead9bcfb9c68583",
            config="xquad.{iso1}",
            splits={"test": "validation"},
            columns=_QA,
        ),
        layout="squad",
        files={"test": ("xquad/xquad.{iso1}.json",)},
        train_on="squad-v1",
    ),
    Task(
        "mlqa",
        kind="target",
        format="qa",
        title="Multilingual question answering (MLQA)",
        labels=(),
        languages="7 languages, question and context in the same one",
        metric="f1",
        source="Lewis et al. 2020, arXiv 1910.07475",
        licence="CC BY-SA 3.0",
        codes=_codes("ar de en es hi vi zh"),
        sizes={"dev": 1148, "test": 11590},
        hub=Hub(
            "google/xtreme",
            _XTREME,
            config="MLQA.{iso1}.{iso1}",
            splits={"dev": "validation", "test": "test"},
            columns=_QA,
        ),
        layout="squad",
        files={
            split: (
                f"MLQA_V1/{split}/{split}-context-{{iso1}}-question-{{iso1}}.json",
                f"mlqa/MLQA_V1/{split}/{split}-context-{{iso1}}-question-{{iso1}}.json",
            )
            for split in ("dev", "test")
        },
        train_on="squad-v1",
    ),
    Task(
        "tydiqa",
        kind="target",
        format="qa",
        title="TyDi QA, gold passage",
        labels=(),
        languages="9 languages",
        metric="f1",
        source="Clark et al. 2020, arXiv 2003.05002",
        licence="Apache-2.0",
        codes=_codes("ar bn en fi id ko ru sw te"),
        sizes={"train": 3696, "dev": 440, "test": 440},
        hub=Hub(
            "google/xtreme",
            _XTREME,
            config="tydiqa",
            splits={"train": "train", "dev": "validation", "test": "validation"},
            columns=_QA,
            prefix="{name}-",
        ),
        layout="squad",
        files={
            "train": ("tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.{iso1}.train.json",),
            "dev": ("tydiqa/tydiqa-goldp-v1.1-dev/tydiqa-goldp-dev-{name}.json",),
            "test": ("tydiqa/tydiqa-goldp-v1.1-dev/tydiqa-goldp-dev-{name}.json",),
        },
        note="The published test part has no answers: dev is evaluated, as in XTREME.",
    ),
    Task(
        "xcopa",
        kind="target",
        format="choice",
        title="Causes and effects, 2 alternatives",
        labels=(),
        languages="11 languages",
        metric="accuracy",
        source="Ponti et al. 2020, arXiv 2005.00333",
        licence="CC BY 4.0",
        codes=_codes("et ht id it qu sw ta th tr vi zh"),
        hub=Hub(
            "cambridgeltl/xcopa",
            "042f78955ba48e6404616762fa6e05e839c3907a",
            config="{iso1}",
            splits={"dev": "validation", "test": "test"},
        ),
        layout="xcopa",
        files={
            "dev": ("xcopa/{iso1}/val.{iso1}.jsonl", "xcopa/val.{iso1}.jsonl"),
            "test": ("xcopa/{iso1}/test.{iso1}.jsonl", "xcopa/test.{iso1}.jsonl"),
        },
        train_on="cosmosqa",
        note="100 dev and 500 test questions a language, none in English; XTREME-R trains on Social IQa and COPA, xt "
        "on Cosmos QA.",
    ),
    Task(
        "sib200",
        kind="target",
        format="single",
        title="Topics of sentences (SIB-200)",
        labels=("entertainment", "geography", "health", "politics", "science/technology", "sports", "travel"),
        languages="54 of its 205 languages",
        metric="accuracy",
        source="Adelani et al. 2024, arXiv 2309.07445; FLORES-200 sentences",
        licence="CC BY-SA 4.0",
        codes=_SIB,
        sizes={"train": 701, "dev": 99, "test": 204},
        hub=Hub(
            "Davlan/sib200",
            _CONVERTED,
            config="{iso3}_{script}",
            splits={"train": "train", "dev": "validation", "test": "test"},
            columns={"text": "text", "label": "category"},
            labels=("entertainment", "geography", "health", "politics", "science/technology", "sports", "travel"),
        ),
        layout="sib200",
        files={split: (f"sib200/{{iso3}}_{{script}}/{split}.tsv",) for split in ("train", "dev", "test")},
    ),
    Task(
        "tatoeba",
        kind="target",
        format="bitext",
        title="Tatoeba sentence translations, up to 1,000 pairs a language",
        labels=(),
        languages="112 languages with English",
        metric="accuracy",
        source="LASER's Tatoeba v1, line-aligned files tatoeba.<lang>-eng.<lang> and .eng; "
        "Artetxe & Schwenk 2019, arXiv 1812.10464",
        licence="CC BY 2.0 FR",
        codes=_TATOEBA,
        hub=Hub(
            "google/xtreme",
            _CONVERTED,
            config="tatoeba.{iso3}",
            splits={"test": "validation"},
            columns={"first": "source_sentence", "second": "target_sentence"},
        ),
        layout="lines",
        files={"test": ("tatoeba/tatoeba.{iso3}-eng.{iso3}",)},
        note="The hub has XTREME's 36 languages of it.",
    ),
    Task(
        "sib200-parallel",
        kind="target",
        format="bitext",
        title="FLORES sentences of SIB-200, aligned with English by identifier",
        labels=(),
        languages="53 of its 205 languages with English",
        metric="accuracy",
        source="Adelani et al. 2024, arXiv 2309.07445: train, dev and test of SIB-200 together; FLORES-200 sentences",
        licence="CC BY-SA 4.0",
        codes=_SIB,
        layout="sib200",
        files={split: (f"sib200/{{iso3}}_{{script}}/{split}.tsv",) for split in ("train", "dev", "test")},
        note="About 1,004 news sentences a language, the same in all of them.",
    ),
    Task(
        "bucc",
        kind="target",
        format="mining",
        title="BUCC 2018: mining translations from two monolingual texts",
        labels=(),
        languages="4 languages with English",
        metric="mining_f1",
        source="Zweigenbaum et al. 2018; bucc2018-<lang>-en.{sample,training}-gold.tar.bz2 of comparable.limsi.fr",
        licence="for research, see BUCC's terms",
        codes=_codes("de fr ru zh"),
        layout="lines",
        files={
            split: (
                *(f"bucc/{{iso1}}-en.{name}.{{iso1}}" for name in names),
                *(f"bucc2018/{{iso1}}-en/{{iso1}}-en.{name}.{{iso1}}" for name in names),
            )
            for split, names in (("dev", ("dev", "sample")), ("test", ("test", "training")))
        },
        note="Unpack the archives below bucc/. XTREME tunes the threshold on `sample` and tests on `training`.",
    ),
    Task(
        "tatoeba-mining",
        kind="target",
        format="mining",
        title="Mining made from Tatoeba, a third of the pairs broken up (not BUCC)",
        labels=(),
        languages="112 languages with English",
        metric="mining_f1",
        source="made from LASER's Tatoeba v1: dev and test by the English sentence, distractors from broken pairs",
        licence="CC BY 2.0 FR",
        codes=_TATOEBA,
        layout="lines",
        files={"test": ("tatoeba/tatoeba.{iso3}-eng.{iso3}",)},
        note="A stand-in where BUCC is not at hand: far smaller, so its figures are higher and not comparable.",
    ),
    Task(
        "xquad-r",
        kind="target",
        format="ranked",
        title="LAReQA: answers in any language to questions in any language (XQuAD-R)",
        labels=(),
        languages="12 languages: LAReQA's 11 and Romanian",
        metric="map@20",
        source="Roy et al. 2020, arXiv 2004.05484; LAReQA's files, else made from XQuAD",
        licence="CC BY-SA 4.0",
        codes=_codes("ar de el en es hi ro ru th tr vi zh"),
        layout="squad",
        files={"test": ("xquad-r/{iso1}.json", "lareqa/xquad-r/{iso1}.json", "xquad/xquad.{iso1}.json")},
        note="LAReQA's own files hold its sentence breaks (13,014 candidates in 11 languages). Without them xt cuts "
        "the contexts of XQuAD itself, and counts differ a little.",
    ),
    Task(
        "mewsli-x",
        kind="target",
        format="ranked",
        title="Mewsli-X: entities described in one of 50 languages, mentioned in another",
        labels=(),
        languages="11 languages of the mentions",
        metric="map@20",
        source="Ruder et al. 2021, arXiv 2104.07412; files of mewsli-x_20220518_6 with the text restored",
        licence="CC BY-SA 4.0 (Wikipedia), CC BY 2.5 (Wikinews)",
        codes=_codes("ar de en es fa ja pl ro ta tr uk"),
        layout="lines",
        files={"test": ("mewsli-x/wikinews_mentions-test.jsonl", "mewslix/wikinews_mentions-test.jsonl")},
        note="Beside it candidate_set_entities.jsonl, about a million descriptions: hours of encoding on a CPU.",
    ),
    Task(
        "django",
        kind="target",
        format="bitext",
        title="Django's translated interface sentences",
        labels=(),
        languages="the locales of Django 5.2 with English",
        metric="accuracy",
        source="the message catalogues (conf/locale) of the installed Django 5.2",
        licence="BSD-3-Clause",
        codes=_DJANGO,
        layout="lines",
    ),
)

TASKS: dict[str, Task] = {task.name: task for task in (*_SAMPLES, *_NINE, *_SMALL, *_TARGETS)}
"""Every task by its name."""
