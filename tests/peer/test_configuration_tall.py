"""transformers' common configuration tests on TALLConfig."""

import json
import unittest

from transformers import M2M100Config

from tall_hf.modeling.configuration_tall import TALLConfig

from ...test_configuration_common import ConfigTester
from .test_modeling_tall import TALLModelTester


class TALLConfigTest(unittest.TestCase):
    def setUp(self):
        self.model_tester = TALLModelTester(self)
        # One test reads each part from the saved file by its model type alone, so the two translators are of two types.
        self.config_tester = ConfigTester(
            self,
            config_class=TALLConfig,
            has_text_modality=False,
            lr_hr_config=json.loads(TALLConfig(lr_hr_config=M2M100Config()).to_json_string())["lr_hr_config"],
            source_bridge="gated",
            alignment_hidden_size=48,
        )

    def test_config(self):
        self.config_tester.run_common_tests()
