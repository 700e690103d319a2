"""The Space of the metric: a form to try it in, by evaluate's own launcher."""

from pathlib import Path

import evaluate
from evaluate.utils import launch_gradio_widget


launch_gradio_widget(evaluate.load(str(Path(__file__).with_name("missing_word_accuracy.py"))))
