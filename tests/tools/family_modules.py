"""The families that relight knows by their hyperparameters, as modules to describe instead: torchvision's
own, and for text the ones that tests/interop/text_models.py writes out."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "interop"))

import text_models  # noqa: E402

try:
    import torchvision.models as vision
except ImportError:
    vision = None

BERT = {"vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 16, "max_position_embeddings": 12}
GPT2 = {"vocab_size": 11, "n_positions": 12, "n_embd": 8, "n_layer": 2, "n_head": 2}

IMAGES = ["x=FP32[-1,3,64,64]"]
MASKED = ["input_ids=INT64[-1,-1]", "attention_mask=INT64[-1,-1]"]
# GPT-2's Conv1D takes the positions of all rows together and apart again, which needs their number.
FIXED = ["input_ids=INT64[-1,8]", "attention_mask=INT64[-1,8]"]


class Classifier(text_models.BertForSequenceClassification):
    def forward(self, input_ids, attention_mask):  # pylint: disable=arguments-differ
        return super().forward(input_ids, attention_mask)


class LanguageModel(text_models.GPT2LMHeadModel):
    def forward(self, input_ids, attention_mask):  # pylint: disable=arguments-differ
        return super().forward(input_ids, attention_mask)


def families():
    """By name: the module and its inputs."""
    modules = {
        "bert": (text_models.BertModel(**BERT), MASKED[:1]),
        "bert for sequence classification": (Classifier(num_labels=3, **BERT), MASKED),
        "gpt2": (text_models.GPT2Model(**GPT2), FIXED[:1]),
        "gpt2 with its language model's head": (LanguageModel(**GPT2), FIXED),
    }
    if vision is not None:
        modules |= {
            "resnet18": (vision.resnet18(num_classes=7), IMAGES),
            "resnext50": (vision.resnext50_32x4d(num_classes=7), IMAGES),
            "vgg11 with batch norm": (vision.vgg11_bn(num_classes=7), IMAGES),
            "mobilenet v2": (vision.mobilenet_v2(num_classes=7), IMAGES),
            "vision transformer": (vision.VisionTransformer(64, 16, 2, 2, 8, 16, num_classes=5), IMAGES),
        }
    return modules
