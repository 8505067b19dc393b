"""The papers that docstrings cite as `Author et al. year`, in full."""

REFERENCES = {
    "Arivazhagan et al. 2019": (
        "Naveen Arivazhagan et al. Monotonic Infinite Lookback Attention for Simultaneous Machine Translation. "
        "ACL 2019. arXiv:1906.05218"
    ),
    "Ba et al. 2016": (
        "Jimmy Lei Ba, Jamie Ryan Kiros, Geoffrey E. Hinton. Layer Normalization. 2016. arXiv:1607.06450"
    ),
    "Bahdanau et al. 2015": (
        "Dzmitry Bahdanau, Kyunghyun Cho, Yoshua Bengio. Neural Machine Translation by Jointly Learning to Align and "
        "Translate. ICLR 2015. arXiv:1409.0473"
    ),
    "Battenberg et al. 2020": (
        "Eric Battenberg et al. Location-Relative Attention Mechanisms for Robust Long-Form Speech Synthesis. "
        "ICASSP 2020. arXiv:1910.10288"
    ),
    "Bengio et al. 2013": (
        "Yoshua Bengio, Nicholas Léonard, Aaron Courville. Estimating or Propagating Gradients Through Stochastic "
        "Neurons for Conditional Computation. 2013. arXiv:1308.3432"
    ),
    "Chiu & Raffel 2018": (
        "Chung-Cheng Chiu, Colin Raffel. Monotonic Chunkwise Attention. ICLR 2018. arXiv:1712.05382"
    ),
    "Cho et al. 2014": (
        "Kyunghyun Cho, Bart van Merriënboer, Caglar Gulcehre, Dzmitry Bahdanau, Fethi Bougares, Holger Schwenk, "
        "Yoshua Bengio. Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine "
        "Translation. EMNLP 2014. arXiv:1406.1078"
    ),
    "Chorowski et al. 2015": (
        "Jan Chorowski, Dzmitry Bahdanau, Dmitriy Serdyuk, Kyunghyun Cho, Yoshua Bengio. Attention-Based Models for "
        "Speech Recognition. NeurIPS 2015. arXiv:1506.07503"
    ),
    "Correia et al. 2019": (
        "Gonçalo M. Correia, Vlad Niculae, André F. T. Martins. Adaptively Sparse Transformers. EMNLP 2019. "
        "arXiv:1909.00015"
    ),
    "Dozat & Manning 2017": (
        "Timothy Dozat, Christopher D. Manning. Deep Biaffine Attention for Neural Dependency Parsing. ICLR 2017. "
        "arXiv:1611.01734"
    ),
    "Graves 2013": "Alex Graves. Generating Sequences With Recurrent Neural Networks. 2013. arXiv:1308.0850",
    "Graves et al. 2014": "Alex Graves, Greg Wayne, Ivo Danihelka. Neural Turing Machines. 2014. arXiv:1410.5401",
    "He et al. 2019": (
        "Mutian He, Yan Deng, Lei He. Robust Sequence-to-Sequence Acoustic Modeling with Stepwise Monotonic Attention "
        "for Neural TTS. Interspeech 2019. arXiv:1906.00672"
    ),
    "Jang et al. 2017": (
        "Eric Jang, Shixiang Gu, Ben Poole. Categorical Reparameterization with Gumbel-Softmax. ICLR 2017. "
        "arXiv:1611.01144"
    ),
    "Luong et al. 2015": (
        "Minh-Thang Luong, Hieu Pham, Christopher D. Manning. Effective Approaches to Attention-based Neural Machine "
        "Translation. EMNLP 2015. arXiv:1508.04025"
    ),
    "Ma et al. 2019": (
        "Mingbo Ma et al. STACL: Simultaneous Translation with Implicit Anticipation and Controllable Latency using "
        "Prefix-to-Prefix Framework. ACL 2019. arXiv:1810.08398"
    ),
    "Martins & Astudillo 2016": (
        "André F. T. Martins, Ramón F. Astudillo. From Softmax to Sparsemax: A Sparse Model of Attention and "
        "Multi-Label Classification. ICML 2016. arXiv:1602.02068"
    ),
    "Martins & Kreutzer 2017": (
        "André F. T. Martins, Julia Kreutzer. Learning What's Easy: Fully Differentiable Neural Easy-First Taggers. "
        "EMNLP 2017"
    ),
    "Niculae & Blondel 2017": (
        "Vlad Niculae, Mathieu Blondel. A Regularized Framework for Sparse and Structured Neural Attention. "
        "NeurIPS 2017. arXiv:1705.07704"
    ),
    "Paulus et al. 2018": (
        "Romain Paulus, Caiming Xiong, Richard Socher. A Deep Reinforced Model for Abstractive Summarization. "
        "ICLR 2018. arXiv:1705.04304"
    ),
    "Peters et al. 2019": (
        "Ben Peters, Vlad Niculae, André F. T. Martins. Sparse Sequence-to-Sequence Models. ACL 2019. arXiv:1905.05702"
    ),
    "Raffel et al. 2017": (
        "Colin Raffel, Minh-Thang Luong, Peter J. Liu, Ron J. Weiss, Douglas Eck. Online and Linear-Time Attention by "
        "Enforcing Monotonic Alignments. ICML 2017. arXiv:1704.00784"
    ),
    "See et al. 2017": (
        "Abigail See, Peter J. Liu, Christopher D. Manning. Get To The Point: Summarization with Pointer-Generator "
        "Networks. ACL 2017. arXiv:1704.04368"
    ),
    "Sennrich et al. 2017": (
        "Rico Sennrich et al. Nematus: a Toolkit for Neural Machine Translation. EACL 2017. arXiv:1703.04357"
    ),
    "Seo et al. 2017": (
        "Minjoon Seo, Aniruddha Kembhavi, Ali Farhadi, Hannaneh Hajishirzi. Bidirectional Attention Flow for Machine "
        "Comprehension. ICLR 2017. arXiv:1611.01603"
    ),
    "Shen et al. 2018": (
        "Jonathan Shen et al. Natural TTS Synthesis by Conditioning WaveNet on Mel Spectrogram Predictions. "
        "ICASSP 2018. arXiv:1712.05884"
    ),
    "Tu et al. 2016": (
        "Zhaopeng Tu, Zhengdong Lu, Yang Liu, Xiaohua Liu, Hang Li. Modeling Coverage for Neural Machine Translation. "
        "ACL 2016. arXiv:1601.04811"
    ),
    "Vaswani et al. 2017": (
        "Ashish Vaswani, Noam Shazeer, Niki Parmar, Jakob Uszkoreit, Llion Jones, Aidan N. Gomez, Łukasz Kaiser, "
        "Illia Polosukhin. Attention Is All You Need. NeurIPS 2017. arXiv:1706.03762"
    ),
    "Watanabe et al. 2018": (
        "Shinji Watanabe et al. ESPnet: End-to-End Speech Processing Toolkit. Interspeech 2018. arXiv:1804.00015"
    ),
    "Wu et al. 2016": (
        "Yonghui Wu et al. Google's Neural Machine Translation System: Bridging the Gap between Human and Machine "
        "Translation. 2016. arXiv:1609.08144"
    ),
    "Wu et al. 2018": (
        "Shijie Wu, Pamela Shapiro, Ryan Cotterell. Hard Non-Monotonic Attention for Character-Level Transduction. "
        "EMNLP 2018. arXiv:1808.10024"
    ),
    "Wu & Cotterell 2019": (
        "Shijie Wu, Ryan Cotterell. Exact Hard Monotonic Attention for Character-Level Transduction. ACL 2019. "
        "arXiv:1905.06319"
    ),
    "Zhang et al. 2018": (
        "Jing-Xuan Zhang, Zhen-Hua Ling, Li-Rong Dai. Forward Attention in Sequence-to-Sequence Acoustic Modeling for "
        "Speech Synthesis. ICASSP 2018. arXiv:1807.06736"
    ),
}
