"""KerasHub's backbones that have batch norms, as small as their code allows.

By hand, for no preset is small, and nothing is downloaded.
"""

from functools import partial

import keras_hub

MODELS = keras_hub.models
IMAGE, ANY = (64, 64, 3), (None, None, 3)


def resnet(block="basic_block", stem=1, blocks=(2, 2, 2), image=IMAGE, **arguments):
    """Three stages, or four, which those who build on it need; the first has 64 channels in any."""
    return MODELS.ResNetBackbone(
        input_conv_filters=[8] * (stem - 1) + [64],
        input_conv_kernel_sizes=[3] * stem if stem > 1 else [7],
        stackwise_num_filters=[64] + [8] * (len(blocks) - 1),
        stackwise_num_blocks=list(blocks),
        stackwise_num_strides=[1] + [2] * (len(blocks) - 1),
        block_type=block,
        image_shape=image,
        **arguments,
    )


pyramid = partial(resnet, blocks=(1, 1, 1, 1), image=ANY)


def densenet():
    return MODELS.DenseNetBackbone(stackwise_num_repeats=[2, 2, 2], growth_rate=8, image_shape=IMAGE)


def efficientnet(*blocks, **arguments):
    return MODELS.EfficientNetBackbone(
        stackwise_kernel_sizes=[3, 3, 5],
        stackwise_num_repeats=[1, 2, 2],
        stackwise_input_filters=[8, 8, 8],
        stackwise_output_filters=[8, 8, 16],
        stackwise_expansion_ratios=[1, 4, 4],
        stackwise_squeeze_and_excite_ratios=[0.25] * 3,
        stackwise_strides=[1, 2, 2],
        stackwise_block_types=list(blocks),
        width_coefficient=1.0,
        depth_coefficient=1.0,
        num_features=32,
        input_shape=IMAGE,
        **arguments,
    )


def mobilenet(squeeze=0.25, activation="hard_swish", residual=True):
    return MODELS.MobileNetBackbone(
        stackwise_expansion=[[16, 16], [24, 24, 24]],
        stackwise_num_blocks=[2, 3],
        stackwise_num_filters=[[8, 8], [16, 16, 16]],
        stackwise_kernel_size=[[3, 3], [5, 5, 5]],
        stackwise_num_strides=[[2, 1], [2, 1, 1]],
        stackwise_se_ratio=[[None, None], [squeeze] * 3],
        stackwise_activation=[["relu"] * 2, [activation] * 3],
        stackwise_padding=[[1, 1], [2, 2, 2]],
        output_num_filters=32,
        depthwise_filters=8,
        depthwise_stride=1,
        depthwise_residual=residual,
        last_layer_filter=32,
        squeeze_and_excite=squeeze,
        input_num_filters=8,
        input_activation=activation,
        image_shape=IMAGE,
    )


def mobilenet_v5(**arguments):
    """Of the blocks that KerasHub can build; "cn", "ir" and "mha" fail in its own code."""
    blocks = [["er", "er"], ["uir", "uir"], ["uir", "mqa"]]

    def everywhere(value):
        return [[value] * len(stack) for stack in blocks]

    return MODELS.MobileNetV5Backbone(
        stackwise_block_types=blocks,
        stackwise_num_blocks=[len(stack) for stack in blocks],
        stackwise_num_filters=everywhere(16),
        stackwise_strides=[[2, 1]] * 3,
        stackwise_act_layers=everywhere("relu"),
        stackwise_exp_ratios=everywhere(2.0),
        stackwise_se_ratios=everywhere(0.0),
        stackwise_dw_kernel_sizes=everywhere(3),
        stackwise_dw_start_kernel_sizes=everywhere(5),
        stackwise_dw_end_kernel_sizes=everywhere(3),
        stackwise_exp_kernel_sizes=everywhere(3),
        stackwise_pw_kernel_sizes=everywhere(1),
        stackwise_num_heads=everywhere(2),
        stackwise_key_dims=everywhere(8),
        stackwise_value_dims=everywhere(8),
        stackwise_kv_strides=everywhere(2),
        stackwise_use_cpe=everywhere(True),
        norm_layer="batch_norm",
        num_features=32,
        msfa_output_resolution=4,
        image_shape=IMAGE,
        **arguments,
    )


def hgnet(affine=True, light=(False, True), stages=2, **arguments):
    """With or without a factor and a term behind each activation, and light blocks."""
    widths = [16, 16, 32, 32][:stages]
    filters = [(before, 8, after, 1, 2, 3) for before, after in zip([8, *widths], widths, strict=False)]
    return MODELS.HGNetV2Backbone(
        depths=[1] * stages,
        embedding_size=8,
        hidden_sizes=widths,
        stem_channels=[3, 8, 8],
        hidden_act="relu",
        use_learnable_affine_block=affine,
        stackwise_stage_filters=filters,
        apply_downsample=[False] + [True] * (stages - 1),
        use_lightweight_conv_block=list(light),
        image_shape=IMAGE,
        **arguments,
    )


def d_fine():
    """For images of one size: code of its encoder multiplies the sizes."""
    stages = ["stage3", "stage4"]
    return MODELS.DFineBackbone(
        backbone=hgnet(light=[False, False, True, True], stages=4, out_features=stages),
        decoder_in_channels=[16, 16],
        encoder_hidden_dim=16,
        num_denoising=0,
        num_labels=5,
        hidden_dim=32,
        learn_initial_query=False,
        num_queries=10,
        anchor_image_size=IMAGE[:2],
        feat_strides=[16, 32],
        num_feature_levels=2,
        encoder_in_channels=[32, 32],
        encode_proj_layers=[1],
        num_attention_heads=2,
        encoder_ffn_dim=16,
        num_encoder_layers=1,
        hidden_expansion=0.5,
        depth_multiplier=0.5,
        eval_idx=-1,
        num_decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        decoder_n_points=[2, 2],
        lqe_hidden_dim=8,
        num_lqe_layers=2,
        out_features=stages,
        image_shape=IMAGE,
        seed=0,
    )


def xception():
    return MODELS.XceptionBackbone(
        stackwise_conv_filters=[[8, 8], [16, 16], [16, 16, 16], [16, 32]],
        stackwise_pooling=[False, True, False, False],
        image_shape=IMAGE,
    )


def cspnet(stage, block, **arguments):
    return MODELS.CSPNetBackbone(
        stem_filters=8,
        stem_kernel_size=3,
        stem_strides=2,
        stackwise_depth=[1, 2, 2],
        stackwise_strides=[2, 2, 2],
        stackwise_num_filters=[16, 16, 32],
        block_type=block,
        stage_type=stage,
        image_shape=IMAGE,
        **arguments,
    )


def deeplab(low_level="P2"):
    return MODELS.DeepLabV3Backbone(
        image_encoder=pyramid(),
        spatial_pyramid_pooling_key="P5",
        upsampling_size=8,
        dilation_rates=[2, 3],
        low_level_feature_key=low_level,
        projection_filters=8,
        image_shape=IMAGE,
    )


def retinanet(use_p5=False):
    return MODELS.RetinaNetBackbone(
        image_encoder=pyramid(),
        min_level=3,
        max_level=7,
        use_p5=use_p5,
        use_fpn_batch_norm=True,
        image_shape=IMAGE,
    )


def basnet():
    """Its encoder is the ResNet without its stem, so that 64 filters come in; its images are small."""
    return MODELS.BASNetBackbone(
        image_encoder=pyramid(), num_classes=1, projection_filters=64, image_shape=(32, 32, 3)
    )


def segformer():
    encoder = MODELS.MiTBackbone(
        layerwise_depths=[1, 1],
        num_layers=2,
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[8, 4],
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        hidden_dims=[8, 16],
        image_shape=IMAGE,
    )
    return MODELS.SegFormerBackbone(image_encoder=encoder, projection_filters=16)


def classifier(task, backbone):
    """Without the preprocessor, which prepares pictures of any size, and without a softmax."""
    return task(backbone=backbone, num_classes=10, preprocessor=None, activation=None)
