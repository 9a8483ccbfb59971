# The paper's Tables 1 to 6, a target each: make table3 DATASET=ucf101 DATA_ROOT=/data/ucf101.
# Every training is made once, however many cells it serves; run again to go on. Evaluations are
# made each time, from features that are kept. TABLES collects the cells, the paper's number beside
# ours and the floors. Trainings that other shards or flags are to change want other RUNS.

TABLES  ?= tables/paper.csv
RUNS    ?= runs/paper
# Repetitions of each fine-tuning, and networks of random weights beside each result.
SEEDS   ?= 1
PRETRAIN_FLAGS ?= --val 0
FINETUNE_FLAGS ?= --val 0
EVALUATE_FLAGS ?= --protocol ours
SMOKE   ?=

# Where the shards of each dataset lie; of ucf101, hmdb51 and kinetics400 they are made if absent.
TRAIN_ucf101     ?= shards/ucf101/ucf101-train1
TEST_ucf101      ?= shards/ucf101/ucf101-test1
TRAIN_hmdb51     ?= shards/hmdb51/hmdb51-train1
TEST_hmdb51      ?= shards/hmdb51/hmdb51-test1
TRAIN_kinetics   ?= shards/kinetics400/kinetics400-train
# Clips every 8 frames; labels are not needed: FLAGS="--no-labels --clip-stride 8".
SHARDS_aslan     ?= shards/aslan
PAIRS_aslan      ?= data/aslan/View2.mat
SHARDS_yupenn    ?= shards/yupenn

TASKS_pattern-1       := motion/grid
TASKS_pattern-2       := motion/rings
TASKS_pattern-3       := motion/triangles
TASKS_global          := motion/global
TASKS_patterns        := motion/grid,motion/rings,motion/triangles
TASKS_appearance      := appearance
TASKS_motion          := motion
TASKS_joint           := motion,appearance
TASKS_kinetics        := motion,appearance

# Cells: table/row/column, and where the fine-tuning behind it begins.
CELLS_table1 := random:scratch pattern-1:pattern-1 pattern-2:pattern-2 pattern-3:pattern-3
CELLS_table2 := random:scratch global:global patterns:patterns patterns+global:motion
CELLS_table3 := scratch:scratch appearance:appearance motion:motion joint:joint
CELLS_table4 := ours-ucf101:joint ours-kinetics:kinetics
COLUMNS_table1 := ucf101
COLUMNS_table2 := ucf101
COLUMNS_table3 := ucf101 hmdb51
COLUMNS_table4 := ucf101 hmdb51

.PHONY: tables table1 table2 table3 table4 table5 table6 tables-smoke
tables: table1 table2 table3 table4 table5 table6  ## fill the paper's Tables 1 to 6, or table1, ... alone; docs/evaluation.md

STARTS := pattern-1 pattern-2 pattern-3 global patterns appearance motion joint kinetics
PRETRAIN_RECIPE = $(if $(filter kinetics,$(1)),kinetics,ucf101)

define pretraining
$(RUNS)/pretrain-$(1)/.done: | $(VENV)/.train $(if $(filter kinetics,$(1)),made-kinetics400,made-ucf101)
	$(BIN)/train pretrain --labels "$(or $(TRAIN_$(1)),$(TRAIN_ucf101))" --tasks $(TASKS_$(1)) \
	    --out $$(@D) --recipe $(call PRETRAIN_RECIPE,$(1)) $(PRETRAIN_FLAGS)
	@touch $$@
endef
$(foreach start,$(STARTS),$(eval $(call pretraining,$(start))))

seeds_of = $(addprefix $(RUNS)/finetune-$(1)/seed-,$(shell seq 0 $$(($(SEEDS) - 1))))

# Arguments: dataset, start.
define finetuning
$(RUNS)/finetune-$(1)-$(2)/.done-$(SEEDS): $(if $(filter-out scratch,$(2)),$(RUNS)/pretrain-$(2)/.done) | $(VENV)/.train made-$(1)
	$(BIN)/train finetune --labels "$(TRAIN_$(1))" --out $$(@D) --seeds $(SEEDS) \
	    --init $(if $(filter scratch,$(2)),scratch,$(RUNS)/pretrain-$(2)) $(FINETUNE_FLAGS)
	@touch $$@

.PHONY: evaluate-$(1)-$(2)
evaluate-$(1)-$(2): $(RUNS)/finetune-$(1)-$(2)/.done-$(SEEDS) $(RUNS)/finetune-$(1)-scratch/.done-$(SEEDS)
	$(BIN)/train evaluate $(call seeds_of,$(1)-$(2)) --labels "$(TEST_$(1))" --out $(RUNS)/$$@ \
	    $(if $(filter-out scratch,$(2)),$(addprefix --scratch ,$(call seeds_of,$(1)-scratch))) \
	    --seeds $(SEEDS) $(EVALUATE_FLAGS)
endef
$(foreach data,ucf101 hmdb51,$(foreach start,scratch $(STARTS),$(eval $(call finetuning,$(data),$(start)))))

# Only the column that DATASET names, where it names one.
columns = $(or $(filter $(DATASET),$(COLUMNS_$(1))),$(COLUMNS_$(1)))
row_of = $(word 1,$(subst :, ,$(1)))
start_of = $(word 2,$(subst :, ,$(1)))
cell = $(BIN)/train cell $(1) --table $(2) --row $(3) --column $(4) -o $(TABLES) $(SMOKE) $(5)

define recognition
$(1): $$(foreach c,$$(call columns,$(1)),$$(foreach p,$$(CELLS_$(1)),evaluate-$$(c)-$$(call start_of,$$(p))))
	$$(foreach c,$$(call columns,$(1)),$$(foreach p,$$(CELLS_$(1)),$$(call cell,$$(RUNS)/evaluate-$$(c)-$$(call start_of,$$(p)),$(1:table%=%),$$(call row_of,$$(p)),$$(c)) &&)) true
endef
$(foreach t,table1 table2 table3 table4,$(eval $(call recognition,$(t))))

SIMILARITY = $(BIN)/train similarity $(1) --labels "$(SHARDS_aslan)" --pairs "$(PAIRS_aslan)" --out $(RUNS)/$@ --seeds $(SEEDS)

.PHONY: similarity-self-supervised similarity-scratch similarity-fine-tuned scenes
similarity-self-supervised: $(RUNS)/pretrain-joint/.done
	$(call SIMILARITY,$(RUNS)/pretrain-joint)

similarity-scratch: $(RUNS)/finetune-ucf101-scratch/.done-$(SEEDS)
	$(call SIMILARITY,$(call seeds_of,ucf101-scratch))

similarity-fine-tuned: $(RUNS)/finetune-ucf101-joint/.done-$(SEEDS)
	$(call SIMILARITY,$(call seeds_of,ucf101-joint))

table5: similarity-scratch similarity-self-supervised similarity-fine-tuned
	$(call cell,$(RUNS)/similarity-self-supervised,5,random,aslan,--of random)
	$(foreach row,scratch self-supervised fine-tuned,$(call cell,$(RUNS)/similarity-$(row),5,$(row),aslan) &&) true

scenes: $(RUNS)/pretrain-joint/.done
	$(BIN)/train scenes $(RUNS)/pretrain-joint --labels "$(SHARDS_yupenn)" --out $(RUNS)/$@ --seeds $(SEEDS)

table6: scenes
	$(call cell,$(RUNS)/scenes,6,ours,yupenn)

# Shards of a dataset are made once, where they are looked for by default; DATA_ROOT is that of
# DATASET alone.
MAKE_SHARDS = $(if $(or $(filter-out shards/$(1)/%,$(2)),$(wildcard shards/$(1)/run.json)),,$(MAKE) labels \
    DATASET=$(1) SPLIT="$(3)" DATA_ROOT="$(if $(filter $(1),$(DATASET)),$(DATA_ROOT),data/$(1))")
.PHONY: made-ucf101 made-hmdb51 made-kinetics400
made-ucf101:
	$(call MAKE_SHARDS,ucf101,$(TRAIN_ucf101),train1 test1)
made-hmdb51:
	$(call MAKE_SHARDS,hmdb51,$(TRAIN_hmdb51),train1 test1)
made-kinetics400:
	$(call MAKE_SHARDS,kinetics400,$(TRAIN_kinetics),train)

# Every cell of every table at a tiny size, on pieces of the demo videos, in minutes.
SMOKE_SHARDS := shards/smoke
SMOKE_FLAGS  := --recipe small --width 0.05 --epochs 1 --batch 4 --val 0

tables-smoke: data/smoke/.complete $(VENV)/.train  ## fill the paper's Tables 1 to 6 at a tiny size: this shows that everything runs
	for split in train test; do \
	    $(BIN)/labelgen extract --manifest data/smoke/$$split.csv --root data/smoke --flow dis --crops grid:16 \
	        --out $(SMOKE_SHARDS) || exit; done
	$(MAKE) tables SMOKE=--smoke RUNS=runs/smoke TABLES=tables/smoke.csv SEEDS=2 DATASET=demo \
	    PRETRAIN_FLAGS="$(SMOKE_FLAGS)" FINETUNE_FLAGS="$(SMOKE_FLAGS)" \
	    $(foreach d,ucf101 hmdb51 kinetics,TRAIN_$(d)=$(SMOKE_SHARDS)/train) \
	    $(foreach d,ucf101 hmdb51,TEST_$(d)=$(SMOKE_SHARDS)/test) \
	    SHARDS_aslan=$(SMOKE_SHARDS)/train PAIRS_aslan=data/smoke/pairs.csv SHARDS_yupenn=$(SMOKE_SHARDS)/train
	@cat tables/smoke.csv

data/smoke/.complete: workflows/smoke.py data/demo/.complete
	$(BIN)/python workflows/smoke.py data/demo data/smoke
	@touch $@
