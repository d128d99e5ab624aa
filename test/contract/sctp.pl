# SCTP over raw sockets, for kernels without SCTP sockets (and Node, which has none on any): the first two packets of
# an association, INIT and INIT ACK (RFC 9260 section 3.3), with real checksums, through conntrack and NAT of the kernel.
#
#   perl sctp.pl serve 4|6 PORT NAME                  answers every INIT for PORT, NAME in a parameter of its own
#   perl sctp.pl ask 4|6 ADDRESS PORT SECONDS TIMES   one INIT after the other; prints a line for each: the milliseconds it
#                                                     took, then `answered NAME CLIENT-ADDRESS`, `refused` or `timeout`
#
# A host without SCTP sends "protocol unreachable", but not while a raw socket takes the packets.
use strict;
use warnings;
use Socket qw(:all);

my ($verb, $version, @args) = @ARGV;
my $family = $version == 6 ? AF_INET6 : AF_INET;
my ($INIT, $INIT_ACK, $SAID) = (1, 2, 0x8008);

my @table = map { my $c = $_; $c = $c & 1 ? ($c >> 1) ^ 0x82f63b78 : $c >> 1 for 1 .. 8; $c } 0 .. 255;

sub crc32c {
    my $crc = 0xffffffff;
    $crc = ($crc >> 8) ^ $table[($crc ^ $_) & 255] for unpack('C*', shift);
    return $crc ^ 0xffffffff;
}

# Common header, one chunk with tag, window, streams and sequence number, one parameter with a text.
sub packet {
    my ($from, $to, $tag, $type, $text) = @_;
    my $parameter = pack('nna*', $SAID, 4 + length $text, $text);
    $parameter .= "\0" x (-length($parameter) % 4);
    my $chunk = pack('CCnNNnnN', $type, 0, 20 + length $parameter, 1 + int rand 0xfffffffe, 65536, 1, 1, 1) . $parameter;
    my $header = pack('nnN', $from, $to, $tag);
    return $header . pack('V', crc32c($header . "\0\0\0\0" . $chunk)) . $chunk;
}

# (source port, destination port, verification tag, chunk type, initiate tag, text); an IPv4 socket gets the IP header too.
sub parse {
    my ($data) = @_;
    $data = substr($data, 4 * (ord($data) & 15)) if $family == AF_INET;
    return if length $data < 32;
    my ($from, $to, $tag, undef, $type, undef, undef, $itag) = unpack('nnNNCCnN', $data);
    my ($kind, $length) = length $data >= 36 ? unpack('nn', substr($data, 32, 4)) : (0, 0);
    return ($from, $to, $tag, $type, $itag, $kind == $SAID ? substr($data, 36, $length - 4) : '');
}

sub address {
    my ($name) = @_;
    return $family == AF_INET6 ? (unpack_sockaddr_in6($name))[1] : (unpack_sockaddr_in($name))[1];
}

sub target {
    my ($bytes) = @_;
    return $family == AF_INET6 ? pack_sockaddr_in6(0, $bytes) : pack_sockaddr_in(0, $bytes);
}

sub open_socket {
    socket(my $socket, $family, SOCK_RAW, 132) or die "Cannot open a raw socket: $!\n";
    return $socket;
}

sub serve {
    my ($port, $name) = @_;
    my $socket = open_socket();
    $| = 1;
    print "ready\n";
    while (defined(my $peer = recv($socket, my $data, 2048, 0))) {
        my ($from, $to, undef, $type, $itag) = parse($data) or next;
        next if $to != $port || $type != $INIT;
        my $client = inet_ntop($family, address($peer));
        send($socket, packet($port, $from, $itag, $INIT_ACK, "$name $client"), 0, target(address($peer)));
    }
}

sub ask {
    my ($address, $port, $seconds) = @_;
    my $socket = open_socket();
    my $own = 1024 + int rand 60000;
    connect($socket, target(inet_pton($family, $address))) or die "Cannot connect: $!\n";
    send($socket, packet($own, $port, 0, $INIT, 'hello'), 0) or die "Cannot send: $!\n";
    my $left = $seconds;
    while (1) {
        vec(my $readable = '', fileno $socket, 1) = 1;
        # Linux tells what is left of the time.
        (my $found, $left) = select($readable, undef, undef, $left);
        my $ms = 1000 * ($seconds - $left);
        return "$ms timeout" if !$found;
        return $ms . ($!{ECONNREFUSED} ? ' refused' : " failed $!") if !defined recv($socket, my $data, 2048, 0);
        my ($from, $to, undef, $type, undef, $text) = parse($data) or next;
        return "$ms answered $text" if $to == $own && $type == $INIT_ACK;
    }
}

if ($verb eq 'serve') {
    serve(@args);
} else {
    my $times = pop @args;
    print ask(@args), "\n" for 1 .. $times;
}
