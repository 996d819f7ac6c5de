package dict

// The registered transfer syntaxes (PS3.6 Table A-1), retired ones included.
const (
	ImplicitLittleEndian                            = "1.2.840.10008.1.2"
	ExplicitLittleEndian                            = "1.2.840.10008.1.2.1"
	EncapsulatedUncompressed                        = "1.2.840.10008.1.2.1.98"
	DeflatedExplicitLittleEndian                    = "1.2.840.10008.1.2.1.99"
	ExplicitBigEndian                               = "1.2.840.10008.1.2.2"
	MPEG2MPML                                       = "1.2.840.10008.1.2.4.100"
	MPEG2MPMLF                                      = "1.2.840.10008.1.2.4.100.1"
	MPEG2MPHL                                       = "1.2.840.10008.1.2.4.101"
	MPEG2MPHLF                                      = "1.2.840.10008.1.2.4.101.1"
	MPEG4HP41                                       = "1.2.840.10008.1.2.4.102"
	MPEG4HP41F                                      = "1.2.840.10008.1.2.4.102.1"
	MPEG4HP41BD                                     = "1.2.840.10008.1.2.4.103"
	MPEG4HP41BDF                                    = "1.2.840.10008.1.2.4.103.1"
	MPEG4HP422D                                     = "1.2.840.10008.1.2.4.104"
	MPEG4HP422DF                                    = "1.2.840.10008.1.2.4.104.1"
	MPEG4HP423D                                     = "1.2.840.10008.1.2.4.105"
	MPEG4HP423DF                                    = "1.2.840.10008.1.2.4.105.1"
	MPEG4HP42STEREO                                 = "1.2.840.10008.1.2.4.106"
	MPEG4HP42STEREOF                                = "1.2.840.10008.1.2.4.106.1"
	HEVCMP51                                        = "1.2.840.10008.1.2.4.107"
	HEVCM10P51                                      = "1.2.840.10008.1.2.4.108"
	JPEGXLLossless                                  = "1.2.840.10008.1.2.4.110"
	JPEGXLJPEGRecompression                         = "1.2.840.10008.1.2.4.111"
	JPEGXL                                          = "1.2.840.10008.1.2.4.112"
	HTJ2KLossless                                   = "1.2.840.10008.1.2.4.201"
	HTJ2KLosslessRPCL                               = "1.2.840.10008.1.2.4.202"
	HTJ2K                                           = "1.2.840.10008.1.2.4.203"
	JPIPHTJ2KReferenced                             = "1.2.840.10008.1.2.4.204"
	JPIPHTJ2KReferencedDeflate                      = "1.2.840.10008.1.2.4.205"
	JPEGBaseline8Bit                                = "1.2.840.10008.1.2.4.50"
	JPEGExtended12Bit                               = "1.2.840.10008.1.2.4.51"
	JPEGExtended35                                  = "1.2.840.10008.1.2.4.52"
	JPEGSpectralSelectionNonHierarchical68          = "1.2.840.10008.1.2.4.53"
	JPEGSpectralSelectionNonHierarchical79          = "1.2.840.10008.1.2.4.54"
	JPEGFullProgressionNonHierarchical1012          = "1.2.840.10008.1.2.4.55"
	JPEGFullProgressionNonHierarchical1113          = "1.2.840.10008.1.2.4.56"
	JPEGLossless                                    = "1.2.840.10008.1.2.4.57"
	JPEGLosslessNonHierarchical15                   = "1.2.840.10008.1.2.4.58"
	JPEGExtendedHierarchical1618                    = "1.2.840.10008.1.2.4.59"
	JPEGExtendedHierarchical1719                    = "1.2.840.10008.1.2.4.60"
	JPEGSpectralSelectionHierarchical2022           = "1.2.840.10008.1.2.4.61"
	JPEGSpectralSelectionHierarchical2123           = "1.2.840.10008.1.2.4.62"
	JPEGFullProgressionHierarchical2426             = "1.2.840.10008.1.2.4.63"
	JPEGFullProgressionHierarchical2527             = "1.2.840.10008.1.2.4.64"
	JPEGLosslessHierarchical28                      = "1.2.840.10008.1.2.4.65"
	JPEGLosslessHierarchical29                      = "1.2.840.10008.1.2.4.66"
	JPEGLosslessSV1                                 = "1.2.840.10008.1.2.4.70"
	JPEGLSLossless                                  = "1.2.840.10008.1.2.4.80"
	JPEGLSNearLossless                              = "1.2.840.10008.1.2.4.81"
	JPEG2000Lossless                                = "1.2.840.10008.1.2.4.90"
	JPEG2000                                        = "1.2.840.10008.1.2.4.91"
	JPEG2000MCLossless                              = "1.2.840.10008.1.2.4.92"
	JPEG2000MC                                      = "1.2.840.10008.1.2.4.93"
	JPIPReferenced                                  = "1.2.840.10008.1.2.4.94"
	JPIPReferencedDeflate                           = "1.2.840.10008.1.2.4.95"
	RLELossless                                     = "1.2.840.10008.1.2.5"
	RFC2557MIMEEncapsulation                        = "1.2.840.10008.1.2.6.1"
	XMLEncoding                                     = "1.2.840.10008.1.2.6.2"
	SMPTEST211020UncompressedProgressiveActiveVideo = "1.2.840.10008.1.2.7.1"
	SMPTEST211020UncompressedInterlacedActiveVideo  = "1.2.840.10008.1.2.7.2"
	SMPTEST211030PCMDigitalAudio                    = "1.2.840.10008.1.2.7.3"
	DeflatedImageFrameCompression                   = "1.2.840.10008.1.2.8.1"
	Papyrus3ImplicitVRLittleEndian                  = "1.2.840.10008.1.20"
)

// syntaxes is in ascending order of the UIDs' text. Lossless says that the
// syntax admits no loss; those that admit both (JPEG 2000, JPEG XL) are false,
// and so is JPEG XL JPEG Recompression, which keeps a lossy JPEG exactly.
var syntaxes = [...]TransferSyntax{
	{UID: ImplicitLittleEndian, Name: "Implicit VR Little Endian", Implicit: true, Lossless: true},
	{UID: ExplicitLittleEndian, Name: "Explicit VR Little Endian", Lossless: true},
	{UID: EncapsulatedUncompressed, Name: "Encapsulated Uncompressed Explicit VR Little Endian", Encapsulated: true, Lossless: true},
	{UID: DeflatedExplicitLittleEndian, Name: "Deflated Explicit VR Little Endian", Deflated: true, Lossless: true},
	{UID: ExplicitBigEndian, Name: "Explicit VR Big Endian (Retired)", BigEndian: true, Lossless: true},
	{UID: MPEG2MPML, Name: "MPEG2 Main Profile / Main Level", Encapsulated: true, Video: true},
	{UID: MPEG2MPMLF, Name: "Fragmentable MPEG2 Main Profile / Main Level", Encapsulated: true, Video: true},
	{UID: MPEG2MPHL, Name: "MPEG2 Main Profile / High Level", Encapsulated: true, Video: true},
	{UID: MPEG2MPHLF, Name: "Fragmentable MPEG2 Main Profile / High Level", Encapsulated: true, Video: true},
	{UID: MPEG4HP41, Name: "MPEG-4 AVC/H.264 High Profile / Level 4.1", Encapsulated: true, Video: true},
	{UID: MPEG4HP41F, Name: "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.1", Encapsulated: true, Video: true},
	{UID: MPEG4HP41BD, Name: "MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1", Encapsulated: true, Video: true},
	{UID: MPEG4HP41BDF, Name: "Fragmentable MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1", Encapsulated: true, Video: true},
	{UID: MPEG4HP422D, Name: "MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video", Encapsulated: true, Video: true},
	{UID: MPEG4HP422DF, Name: "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video", Encapsulated: true, Video: true},
	{UID: MPEG4HP423D, Name: "MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video", Encapsulated: true, Video: true},
	{UID: MPEG4HP423DF, Name: "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video", Encapsulated: true, Video: true},
	{UID: MPEG4HP42STEREO, Name: "MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2", Encapsulated: true, Video: true},
	{UID: MPEG4HP42STEREOF, Name: "Fragmentable MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2", Encapsulated: true, Video: true},
	{UID: HEVCMP51, Name: "HEVC/H.265 Main Profile / Level 5.1", Encapsulated: true, Video: true},
	{UID: HEVCM10P51, Name: "HEVC/H.265 Main 10 Profile / Level 5.1", Encapsulated: true, Video: true},
	{UID: JPEGXLLossless, Name: "JPEG XL Lossless", Encapsulated: true, Lossless: true},
	{UID: JPEGXLJPEGRecompression, Name: "JPEG XL JPEG Recompression", Encapsulated: true},
	{UID: JPEGXL, Name: "JPEG XL", Encapsulated: true},
	{UID: HTJ2KLossless, Name: "High-Throughput JPEG 2000 Image Compression (Lossless Only)", Encapsulated: true, Lossless: true},
	{UID: HTJ2KLosslessRPCL, Name: "High-Throughput JPEG 2000 with RPCL Options Image Compression (Lossless Only)", Encapsulated: true, Lossless: true},
	{UID: HTJ2K, Name: "High-Throughput JPEG 2000 Image Compression", Encapsulated: true},
	{UID: JPIPHTJ2KReferenced, Name: "JPIP HTJ2K Referenced", Refused: true},
	{UID: JPIPHTJ2KReferencedDeflate, Name: "JPIP HTJ2K Referenced Deflate", Deflated: true, Refused: true},
	{UID: JPEGBaseline8Bit, Name: "JPEG Baseline (Process 1)", Encapsulated: true},
	{UID: JPEGExtended12Bit, Name: "JPEG Extended (Process 2 and 4)", Encapsulated: true},
	{UID: JPEGExtended35, Name: "JPEG Extended (Process 3 and 5) (Retired)", Encapsulated: true},
	{UID: JPEGSpectralSelectionNonHierarchical68, Name: "JPEG Spectral Selection, Non-Hierarchical (Process 6 and 8) (Retired)", Encapsulated: true},
	{UID: JPEGSpectralSelectionNonHierarchical79, Name: "JPEG Spectral Selection, Non-Hierarchical (Process 7 and 9) (Retired)", Encapsulated: true},
	{UID: JPEGFullProgressionNonHierarchical1012, Name: "JPEG Full Progression, Non-Hierarchical (Process 10 and 12) (Retired)", Encapsulated: true},
	{UID: JPEGFullProgressionNonHierarchical1113, Name: "JPEG Full Progression, Non-Hierarchical (Process 11 and 13) (Retired)", Encapsulated: true},
	{UID: JPEGLossless, Name: "JPEG Lossless, Non-Hierarchical (Process 14)", Encapsulated: true, Lossless: true},
	{UID: JPEGLosslessNonHierarchical15, Name: "JPEG Lossless, Non-Hierarchical (Process 15) (Retired)", Encapsulated: true, Lossless: true},
	{UID: JPEGExtendedHierarchical1618, Name: "JPEG Extended, Hierarchical (Process 16 and 18) (Retired)", Encapsulated: true},
	{UID: JPEGExtendedHierarchical1719, Name: "JPEG Extended, Hierarchical (Process 17 and 19) (Retired)", Encapsulated: true},
	{UID: JPEGSpectralSelectionHierarchical2022, Name: "JPEG Spectral Selection, Hierarchical (Process 20 and 22) (Retired)", Encapsulated: true},
	{UID: JPEGSpectralSelectionHierarchical2123, Name: "JPEG Spectral Selection, Hierarchical (Process 21 and 23) (Retired)", Encapsulated: true},
	{UID: JPEGFullProgressionHierarchical2426, Name: "JPEG Full Progression, Hierarchical (Process 24 and 26) (Retired)", Encapsulated: true},
	{UID: JPEGFullProgressionHierarchical2527, Name: "JPEG Full Progression, Hierarchical (Process 25 and 27) (Retired)", Encapsulated: true},
	{UID: JPEGLosslessHierarchical28, Name: "JPEG Lossless, Hierarchical (Process 28) (Retired)", Encapsulated: true, Lossless: true},
	{UID: JPEGLosslessHierarchical29, Name: "JPEG Lossless, Hierarchical (Process 29) (Retired)", Encapsulated: true, Lossless: true},
	{UID: JPEGLosslessSV1, Name: "JPEG Lossless, Non-Hierarchical, First-Order Prediction (Process 14 [Selection Value 1])", Encapsulated: true, Lossless: true},
	{UID: JPEGLSLossless, Name: "JPEG-LS Lossless Image Compression", Encapsulated: true, Lossless: true},
	{UID: JPEGLSNearLossless, Name: "JPEG-LS Lossy (Near-Lossless) Image Compression", Encapsulated: true},
	{UID: JPEG2000Lossless, Name: "JPEG 2000 Image Compression (Lossless Only)", Encapsulated: true, Lossless: true},
	{UID: JPEG2000, Name: "JPEG 2000 Image Compression", Encapsulated: true},
	{UID: JPEG2000MCLossless, Name: "JPEG 2000 Part 2 Multi-component Image Compression (Lossless Only)", Encapsulated: true, Lossless: true},
	{UID: JPEG2000MC, Name: "JPEG 2000 Part 2 Multi-component Image Compression", Encapsulated: true},
	{UID: JPIPReferenced, Name: "JPIP Referenced", Refused: true},
	{UID: JPIPReferencedDeflate, Name: "JPIP Referenced Deflate", Deflated: true, Refused: true},
	{UID: RLELossless, Name: "RLE Lossless", Encapsulated: true, Lossless: true},
	{UID: RFC2557MIMEEncapsulation, Name: "RFC 2557 MIME encapsulation (Retired)", Refused: true},
	{UID: XMLEncoding, Name: "XML Encoding (Retired)", Refused: true},
	{UID: SMPTEST211020UncompressedProgressiveActiveVideo, Name: "SMPTE ST 2110-20 Uncompressed Progressive Active Video", Refused: true},
	{UID: SMPTEST211020UncompressedInterlacedActiveVideo, Name: "SMPTE ST 2110-20 Uncompressed Interlaced Active Video", Refused: true},
	{UID: SMPTEST211030PCMDigitalAudio, Name: "SMPTE ST 2110-30 PCM Digital Audio", Refused: true},
	{UID: DeflatedImageFrameCompression, Name: "Deflated Image Frame Compression", Encapsulated: true, Lossless: true},
	{UID: Papyrus3ImplicitVRLittleEndian, Name: "Papyrus 3 Implicit VR Little Endian (Retired)", Implicit: true, Lossless: true},
}
