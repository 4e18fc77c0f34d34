SUMMARY = "Live streaming for smart glasses"
DESCRIPTION = "Owns the camera, encodes H.264 in hardware, publishes RTMP, tells phone or cloud what goes on."
HOMEPAGE = "https://git.example.org/lenscast"
BUGTRACKER = "https://git.example.org/lenscast/issues"
SECTION = "multimedia"
CVE_PRODUCT = "lenscast"
LICENSE = "MIT | Apache-2.0"
LIC_FILES_CHKSUM = "\
    file://LICENSE-APACHE;md5=3b83ef96387f14655fc854ddc3c6bd57 \
    file://LICENSE-MIT;md5=066977eeb5ad08c397f8ba20d4277bf8 \
"

# clang: for bindgen, which reads the kernel's header.
DEPENDS = "clang-native glib-2.0 gstreamer1.0 gstreamer1.0-plugins-base"

# Where your copy is; a .bbappend says it, and with SRCREV which commit to build.
LENSCAST_GIT ?= "git://git.example.org/lenscast.git;protocol=https;branch=main"
# Where S is by default, which is not where all releases unpack git to.
SRC_URI = "${LENSCAST_GIT};destsuffix=${BP}"
# The crates of Cargo.lock with their checksums: written by `bitbake -c update_crates lenscast`.
include lenscast-crates.inc

inherit cargo cargo-update-recipe-crates features_check pkgconfig systemd

REQUIRED_DISTRO_FEATURES = "systemd"

export LIBCLANG_PATH = "${STAGING_LIBDIR_NATIVE}"
# The target's header, not that of the machine that builds.
export BINDGEN_EXTRA_CLANG_ARGS = "--sysroot=${STAGING_DIR_TARGET}"

# Without the feature `cloud`: that one runs on a server.
CARGO_BUILD_FLAGS:append = " --bin lenscastd --bin lenscastctl"

SYSTEMD_SERVICE:${PN} = "lenscastd.service lenscastd.socket lenscast-holders.socket"

do_install:append() {
    install -d ${D}${systemd_system_unitdir} ${D}${nonarch_libdir}/udev/rules.d
    install -m 0644 ${S}/systemd/lenscastd.service ${S}/systemd/lenscastd.socket \
        ${S}/systemd/lenscast-holders.socket ${S}/systemd/lenscast-holders@.service ${D}${systemd_system_unitdir}
    install -m 0644 ${S}/systemd/60-lenscast.rules ${D}${nonarch_libdir}/udev/rules.d
    install -D -m 0644 ${S}/systemd/lenscast.sysusers ${D}${nonarch_libdir}/sysusers.d/lenscast.conf
    install -D -m 0644 ${S}/systemd/lenscast.tmpfiles ${D}${nonarch_libdir}/tmpfiles.d/lenscast.conf
    install -D -m 0644 ${S}/packaging/lenscastd.toml ${D}${sysconfdir}/lenscast/lenscastd.toml
    install -d ${D}${datadir}/lenscast/pipelines
    install -m 0644 ${S}/pipelines/*.toml ${D}${datadir}/lenscast/pipelines
}

FILES:${PN} += "\
    ${nonarch_libdir}/sysusers.d \
    ${nonarch_libdir}/tmpfiles.d \
    ${nonarch_libdir}/udev/rules.d \
    ${systemd_system_unitdir}/lenscast-holders@.service \
"
CONFFILES:${PN} = "${sysconfdir}/lenscast/lenscastd.toml"

# AAC is voaacenc's, which gstreamer1.0-plugins-bad builds with PACKAGECONFIG "voaacenc".
RDEPENDS:${PN} = "\
    glib-networking \
    gstreamer1.0-plugins-bad-rtmp2 \
    gstreamer1.0-plugins-bad-videoparsersbad \
    gstreamer1.0-plugins-bad-voaacenc \
    gstreamer1.0-plugins-base-alsa \
    gstreamer1.0-plugins-base-app \
    gstreamer1.0-plugins-base-audioconvert \
    gstreamer1.0-plugins-base-audioresample \
    gstreamer1.0-plugins-base-audiotestsrc \
    gstreamer1.0-plugins-base-videoconvertscale \
    gstreamer1.0-plugins-base-videorate \
    gstreamer1.0-plugins-base-videotestsrc \
    gstreamer1.0-plugins-good-audioparsers \
    gstreamer1.0-plugins-good-flv \
    gstreamer1.0-plugins-good-jpeg \
    gstreamer1.0-plugins-good-video4linux2 \
    gstreamer1.0-plugins-good-videocrop \
    gstreamer1.0-plugins-good-videofilter \
"
RRECOMMENDS:${PN} = "ca-certificates gstreamer1.0-plugins-bad-openh264"
