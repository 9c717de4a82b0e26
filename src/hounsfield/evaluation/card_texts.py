"""Sentences of the model card that do not depend on the figures: purpose and limits of each task, papers."""

RESEARCH = "**Research use only**, not a medical device: not for diagnosis, treatment or any decision about a patient."
PURPOSE = {
    "lung-tumour": "Segmentation of lung tumours on axial chest CT, slice by slice, for research on measurements such "
    "as volume and diameter. Output: tumour probabilities (N, H, W), float32; a pixel counts as tumour from {:g}.",
    "l3-slice": "Detection of the slices at the third lumbar vertebra on axial abdominal CT, for research on body "
    "composition. Output: L3 probabilities (N,), float32; a slice counts as L3 from {:g}.",
}
USERS = "Users: researchers who look at the result on the images, and test the model on CT of their own scanners first."
OUT_OF_SCOPE = {
    "lung-tumour": "Out of scope: screening, ruling a tumour out, staging, planning of radiotherapy, other lesions.",
    "l3-slice": "Out of scope: naming or counting vertebrae, diagnosis of sarcopenia, series that do not reach L3.",
}
LIMITS = {
    "lung-tumour": (
        "It sees one slice at a time, and knows only tumours as they are labelled in its training data; other findings "
        "may be marked, and small or faint tumours missed.",
    ),
    "l3-slice": (
        "It sees one slice at a time, and some slice comes out likeliest in a series without L3 as well; anomalies of "
        "the spine, such as a sixth lumbar vertebra, shift the level.",
    ),
}
EVERYWHERE = (
    "Sex, age and origin of the patients are not kept, scanner and contrast phase not known to the evaluation: there "
    "are no figures by them, and what the evaluated patients do not cover is untested.",
    "CT in Hounsfield units only: no MR, no windowed images, no cone-beam CT.",
)
METHOD = {
    "lung-tumour": '"A Study on Lung Cancer Segmentation Algorithm using Weighted Integration Loss on Volumetric Chest '
    'CT Image", 2020, KoreaScience JAKO202015555312473',
    "l3-slice": 'Chae et al. 2025, "Optimization-Incorporated Deep Learning Strategy to Automate L3 Slice Detection '
    'and Abdominal Segmentation in Computed Tomography", Bioengineering 12(4):367',
}
PAPERS = {
    "unet": 'Ronneberger et al. 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI',
    "segnet": 'Badrinarayanan et al. 2017, "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image '
    'Segmentation", IEEE TPAMI 39',
    "enet": 'Paszke et al. 2016, "ENet: A Deep Neural Network Architecture for Real-Time Semantic Segmentation", '
    "arXiv:1606.02147",
    "resnet": 'He et al. 2016, "Deep Residual Learning for Image Recognition", CVPR',
    "focal": 'Lin et al. 2017, "Focal Loss for Dense Object Detection", ICCV',
    "dice": 'Milletari et al. 2016, "V-Net: Fully Convolutional Neural Networks for Volumetric Medical Image '
    'Segmentation", 3DV',
}
LOSSES = {"fl": ("focal",), "cl": ("focal", "dice"), "dice": ("dice",)}
INTERVALS = (
    "Intervals: percentile bootstrap over patients, 10,000 resamples; exact binomial where all patients agree on a "
    "rate. They come out too narrow when patients are few, and leave out how much another training would differ."
)
