%% Random terms of every kind, the same for the same seed as long as one VM lives, and whether they came back as they were.
-module(peer_terms).

-export([terms/2, encoded/2, check/2, check_encoded/2, echoed/6]).

-define(POOL, {?MODULE, pool}).

%% The N terms of a seed: the odd ones first, then random ones.
terms(Seed, N) ->
    _ = rand:seed(exsss, {Seed, 2, 3}),
    Odd = lists:sublist(odd(), N),
    Odd ++ [term(5) || _ <- lists:seq(1, N - length(Odd))].

encoded(Seed, N) ->
    [peer_wire:encode(Term) || Term <- terms(Seed, N)].

%% [] if those are the very terms of the seed, else [{Index, Original, Got}].
check(Seed, Terms) ->
    Numbered = lists:zip3(lists:seq(1, length(Terms)), terms(Seed, length(Terms)), Terms),
    [Wrong || {_, Original, Got} = Wrong <- Numbered, not same(Original, Got)].

check_encoded(Seed, Binaries) ->
    check(Seed, [binary_to_term(Binary) || Binary <- Binaries]).

%% Sends each term of the seed to an echoing function of another peer; gives what did not come back as it was.
echoed(Url, Secret, {Module, Function}, Seed, N, Options) ->
    Results = [{Term, peer_client:call(Url, Secret, Module, Function, [Term], Options)} || Term <- terms(Seed, N)],
    [Wrong || {Term, Result} = Wrong <- Results, element(1, Result) =/= ok orelse not same(Term, element(2, Result))].

%% -0.0 =:= 0.0 before OTP 27, so the bytes are compared as well.
same(A, B) ->
    A =:= B andalso term_to_binary(A, [deterministic]) =:= term_to_binary(B, [deterministic]).

term(0) ->
    leaf();
term(Depth) ->
    case rand:uniform(12) of
        1 -> list(Depth);
        2 -> improper(Depth);
        3 -> list_to_tuple(list(Depth));
        4 -> maps:from_list([{key(Depth), term(Depth - 1)} || _ <- few(4)]);
        5 -> closure(term(Depth - 1));
        6 -> [rand:uniform(256) - 1 || _ <- few(20)];
        7 -> maps:from_list([{rand:uniform(1000), leaf()} || _ <- few(60)]);
        _ -> leaf()
    end.

list(Depth) -> [term(Depth - 1) || _ <- few(4)].

improper(Depth) ->
    case {list(Depth), leaf()} of
        {[], Leaf} -> [leaf() | Leaf];
        {List, Leaf} -> List ++ Leaf
    end.

%% Keys that a careless decoder takes for one another.
key(Depth) ->
    pick([1, 1.0, true, <<"1">>, "1", '1', [], {}, #{}, #{1 => a}, [1, 2], {1}, <<1:1>>, leaf(), term(Depth - 1)]).

closure(Inside) ->
    pick([fun() -> Inside end, fun(X) -> {X, Inside} end]).

few(Most) -> lists:seq(1, rand:uniform(Most + 1) - 1).

pick(Choices) -> lists:nth(rand:uniform(length(Choices)), Choices).

leaf() ->
    case rand:uniform(8) of
        1 -> rand:uniform(600) - 300;
        2 -> pick([1, -1]) * (rand:uniform(1 bsl pick([8, 31, 32, 59, 63, 64, 65, 128])) - 1);
        3 -> (rand:uniform() - 0.5) * math:pow(10, rand:uniform(40) - 20);
        4 -> rand:bytes(rand:uniform(40) - 1);
        5 -> Bits = rand:uniform(70), <<(rand:uniform(1 bsl Bits) - 1):Bits>>;
        _ -> pick(odd())
    end.

odd() ->
    atoms() ++ numbers() ++ binaries() ++ containers() ++ pool().

atoms() ->
    ['', a, true, false, undefined, nil, 'two words', 'it\'s', 'line\nbreak', '\x{e9}t\x{e9}', '\x{ff}', '\x{416}\x{1f600}',
     list_to_atom(lists:duplicate(255, $a)), list_to_atom(lists:duplicate(255, 16#e9)),
     list_to_atom(lists:duplicate(255, 16#1f600)), 'Elixir.String'].

numbers() ->
    Edges = [0, 255, 256, 1 bsl 27, 1 bsl 28, (1 bsl 31) - 1, 1 bsl 31, (1 bsl 59) - 1, 1 bsl 59, 1 bsl 63, 1 bsl 64,
             1 bsl 2039, 1 bsl 2040, 1 bsl 2100],
    Edges ++ [-Edge || Edge <- Edges] ++ [-1, -(1 bsl 31) - 1]
        ++ [0.0, -0.0, 1.0, 1.5, -2.25, 5.0e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 0.1].

binaries() ->
    [<<>>, <<0>>, <<255>>, <<"caf\x{e9}">>, <<"caf\x{e9}"/utf8>>, <<0:800>>, <<1:1>>, <<5:3>>, <<1, 2, 7:5>>, <<0:127>>].

containers() ->
    [[], "a", "abc", lists:duplicate(300, $x), [0], [255], [256], [-1], [1.0], [a | b], [1, 2 | 3], [[] | <<>>], [[]], [[[]]],
     "\x{416}", {}, {{}}, list_to_tuple(lists:seq(1, 255)), list_to_tuple(lists:seq(1, 256)), #{}, #{a => #{}},
     #{1 => int, 1.0 => float, <<"1">> => binary, "1" => list, true => atom, "true" => list, [] => nil, {} => tuple,
       [1, [2]] => nested, #{a => [1]} => map, <<1:3>> => bits}, maps:from_list([{N, -N} || N <- lists:seq(1, 40)])].

%% Things of this VM's own, made once, so that they are the same at every asking; and the same of another node.
pool() ->
    case persistent_term:get(?POOL, none) of
        none ->
            persistent_term:put(?POOL, [self(), whereis(init), make_ref(), hd(erlang:ports()) | foreign() ++ functions()]),
            pool();
        Pool ->
            Pool
    end.

foreign() ->
    Node = <<119, 10, "other@host">>,
    [binary_to_term(<<131, Bytes/binary>>) || Bytes <- [
        <<88, Node/binary, 70:32, 1:32, 77:32>>,
        <<103, 100, 10:16, "other@host", 71:32, 2:32, 3>>,
        <<90, 3:16, Node/binary, 77:32, 1:32, 2:32, 3:32>>,
        <<114, 3:16, 100, 10:16, "other@host", 1, 1:32, 2:32, 3:32>>,
        <<89, Node/binary, 9:32, 77:32>>,
        <<102, 100, 10:16, "other@host", 9:32, 2>>]].

functions() ->
    Inside = #{kept => [1, 2.0, <<3>>]},
    [fun erlang:abs/1, fun peer_functions:echo/1, fun no_such_module:'no such'/255, fun() -> ok end, fun(X) -> {X, Inside} end].
